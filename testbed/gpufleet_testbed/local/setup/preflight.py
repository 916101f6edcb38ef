"""Checks that this machine can run the local provider; every problem has a fix."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.config import ENV_CACHE, ClusterConfig, down_command
from gpufleet_testbed.errors import HostError, Problem
from gpufleet_testbed.host.packages import ensure_packages, is_debian_like, missing_packages, package_problem
from gpufleet_testbed.host.system import Host, System
from gpufleet_testbed.local.layout import link_name
from gpufleet_testbed.local.processes import cgroups
from gpufleet_testbed.local.setup.network import alias_of, overlap
from gpufleet_testbed.progress import Progress

_MACHINES = ("x86_64", "aarch64")
_MAX_SOCKET_PATH = 107
_HIDDEN = (Path("/run"), Path("/var/lib"), Path("/var/log"))
_FREE_BYTES = 3 << 30
_CONTROLLERS_V1 = frozenset({"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"})
_CONTROLLERS_V2 = frozenset({"cpu", "cpuset", "memory", "pids"})
_MODULES = ("overlay", "bridge", "veth", "br_netfilter")


@dataclass(frozen=True)
class Probe:
    """A command to try in a temporary namespace."""

    args: tuple[str, ...]
    problem: Problem


_NAMESPACES = Probe(
    ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"),
    Problem("this process cannot create namespaces", "run on the machine itself, or in a container with --privileged"),
)
_IPTABLES = """\
iptables -t nat -A POSTROUTING -m comment --comment x -m mark --mark 1/1 -j MASQUERADE
iptables -t nat -A PREROUTING -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to 127.0.0.1:1
iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP
"""
_FEATURES = (
    Probe(
        ("unshare", "--net", "sh", "-ec", "ip link add b0 type bridge; ip link add v0 type veth peer name v1"),
        Problem("the kernel cannot create bridge and veth interfaces", "modprobe -a bridge veth"),
    ),
    Probe(
        ("unshare", "--net", "test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables"),
        Problem("bridged packets do not pass through iptables", "modprobe br_netfilter"),
    ),
    Probe(
        ("unshare", "--net", "sh", "-ec", _IPTABLES),
        Problem(
            "iptables lacks features that kube-proxy needs (comment, mark, statistic, conntrack, MASQUERADE, DNAT)",
            "modprobe -a nf_tables nft_compat nf_nat xt_comment xt_mark xt_statistic xt_conntrack xt_MASQUERADE xt_nat",
        ),
    ),
)


def prepare_host(
    config: ClusterConfig, root: Path, progress: Progress, *, network_free: bool, system: System | None = None
) -> None:
    """Checks rights, kernel features and addresses, and installs missing packages.

    Args:
        config: The cluster that is to run.
        root: The cluster's folder; its parent is the cache.
        progress: Where the installation of packages is shown.
        network_free: The cluster of this cache is not running, so its addresses must be unused.
        system: This machine.

    Raises:
        HostError: The machine lacks something that the test bed cannot add; each problem names its fix.
    """
    system, cache = system or Host(), root.parent
    problems = basic_problems(system, root, config)
    if problems:
        raise HostError(problems)
    ensure_packages(system, progress)
    problems = kernel_problems(system, cache)
    if network_free:
        problems += network_problems(system, config, root)
    if problems:
        raise HostError(problems)


def basic_problems(system: System, root: Path, config: ClusterConfig) -> list[Problem]:
    """Returns problems that prevent all other checks: wrong system, missing privileges, unusable folders."""
    cache = root.parent
    name, machine = system.kernel()
    if name != "Linux" or machine not in _MACHINES:
        return [
            Problem(
                f"the local provider runs on Linux on {' or '.join(_MACHINES)}, not {name} {machine}",
                "use such a machine",
            )
        ]
    problems = []
    if not system.is_root():
        problems.append(Problem("the local provider needs root to create namespaces and mounts", "run it with sudo -E"))
        packages = missing_packages(system)
        if packages:
            debian = is_debian_like(system.read(Path("/etc/os-release")))
            problems.append(package_problem(packages, debian=debian))
    problems += _folder_problems(root, config)
    free = system.free_bytes(cache)
    if free < _FREE_BYTES:
        fix = f"free some, or set {ENV_CACHE} to a folder with 3 GiB"
        problems.append(Problem(f"{cache} has only {free >> 20} MiB left on its disk", fix))
    return problems


def _folder_problems(root: Path, config: ClusterConfig) -> list[Problem]:
    problems, cache = [], root.parent
    for path in (cache, Path(sys.executable).resolve(), Path(__file__)):
        hidden = next((folder for folder in _HIDDEN if path.is_relative_to(folder)), None)
        if hidden:
            fix = f"set {ENV_CACHE}" if path == cache else "move it"
            problems.append(
                Problem(f"{path} is below {hidden}, which a node replaces with its own", f"{fix} elsewhere")
            )
    socket = root / "nodes" / f"node-{config.nodes}" / "var-lib" / "kubelet" / "pod-resources" / "kubelet.sock"
    if len(str(socket)) > _MAX_SOCKET_PATH:
        fix = f"set {ENV_CACHE} to a folder with a shorter name"
        problems.append(Problem(f"{socket} is too long for a Unix socket ({_MAX_SOCKET_PATH} characters)", fix))
    return problems


def kernel_problems(system: System, cache: Path) -> list[Problem]:
    """Returns missing kernel features, after an attempt to load their modules."""
    if system.run(_NAMESPACES.args).returncode != 0:
        return [_NAMESPACES.problem]
    problems = _failed(system, _FEATURES)
    overlay = _overlay_problem(system, cache)
    if problems or overlay:
        # Loaded modules change nothing else on the machine.
        system.run(["modprobe", "--all", *_MODULES])
        problems = _failed(system, _FEATURES)
        overlay = _overlay_problem(system, cache)
    problems += [overlay] if overlay else []
    problems += cgroup_problems(system.read(Path("/proc/self/mountinfo")), system)
    if not system.exists(Path("/opt")):
        problems.append(Problem("nodes mount a folder below /opt, which is missing", "mkdir /opt"))
    if not system.exists(Path("/dev/kmsg")):
        problems.append(Problem("the kubelet needs /dev/kmsg", "start the container with --device /dev/kmsg"))
    version = system.run(["openssl", "version"]).stdout
    if version.split()[1:2] < ["3"]:
        problems.append(
            Problem(f"OpenSSL 3 is required, this is {version.strip()}", "use Debian 12, Ubuntu 22.04 or newer")
        )
    return problems


def cgroup_problems(mountinfo: str, system: System) -> list[Problem]:
    """Returns missing or read-only cgroup controllers."""
    tree = cgroups.managed(cgroups.parse_mountinfo(mountinfo))
    if not tree:
        return [Problem("no cgroup file system is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")]
    if tree[0].version == 2:
        needed, version = _CONTROLLERS_V2, "v2"
        found = frozenset(system.read(tree[0].mount / "cgroup.controllers").split())
    else:
        needed, version = _CONTROLLERS_V1, "v1"
        found = frozenset().union(*(hierarchy.controllers for hierarchy in tree))
    problems = []
    if needed - found:
        names = ", ".join(sorted(needed - found))
        fix = "boot with cgroup_enable=memory, or in a container use --privileged --cgroupns=host"
        problems.append(Problem(f"cgroup {version} lacks the controllers {names}", fix))
    read_only = [str(hierarchy.mount) for hierarchy in tree if not hierarchy.writable]
    if read_only:
        problems.append(Problem(f"{', '.join(read_only)} is read-only", "start the container with --privileged"))
    return problems


def network_problems(system: System, config: ClusterConfig, root: Path) -> list[Problem]:
    """Returns conflicts of addresses or of the interface."""
    problems, link = [], link_name(config.name)
    routes = json.loads(system.run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout or "[]")
    if taken := overlap(config.network_address, routes, link):
        problems.append(taken)
    shown = system.run(["ip", "-json", "link", "show", link])
    if shown.returncode == 0:
        alias = json.loads(shown.stdout)[0].get("ifalias", "")
        if alias != alias_of(root):
            what = f"interface {link} exists ({alias or 'not created by gpufleet'})"
            other = Path(alias.rpartition(" in ")[2]).parent
            fix = (
                f"{ENV_CACHE}={other} {down_command(config.name)}"
                if alias
                else f"ip link delete {link}, if it is not needed"
            )
            problems.append(Problem(what, fix))
    return problems


def _failed(system: System, probes: Sequence[Probe]) -> list[Problem]:
    return [probe.problem for probe in probes if system.run(probe.args).returncode != 0]


def _overlay_problem(system: System, cache: Path) -> Problem | None:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".overlay-") as folder:
        script = (
            'cd "$1"; mkdir lower upper work merged;'
            "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged; touch merged/file"
        )
        if system.run(["unshare", "--mount", "sh", "-ec", script, "sh", folder]).returncode == 0:
            return None
    fix = f"modprobe overlay, or set {ENV_CACHE} to a folder on ext4, xfs or tmpfs (not on an overlay)"
    return Problem(f"containerd cannot use overlayfs in {cache}", fix)
