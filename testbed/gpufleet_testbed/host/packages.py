"""Debian packages that the local provider needs; installs missing ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.errors import ClusterError, HostError, Problem
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.host.system import System
from gpufleet_testbed.progress import Progress


@dataclass(frozen=True)
class Requirement:
    """A program on the PATH or a file, and the Debian package that contains it."""

    needed: str
    package: str

    def met(self, system: System) -> bool:
        """Returns whether this machine has it."""
        return system.exists(Path(self.needed)) if self.needed.startswith("/") else system.which(self.needed)


REQUIREMENTS = (
    Requirement("runc", "runc"),
    *(
        Requirement(f"/usr/lib/cni/{name}", "containernetworking-plugins")
        for name in ("bridge", "host-local", "portmap")
    ),
    Requirement("iptables", "iptables"),
    Requirement("ip", "iproute2"),
    Requirement("mount", "mount"),
    Requirement("unshare", "util-linux"),
    Requirement("nsenter", "util-linux"),
    Requirement("setpriv", "util-linux"),
    Requirement("openssl", "openssl"),
    Requirement("gcc", "gcc"),
    Requirement("/usr/include/stdlib.h", "libc6-dev"),
    Requirement("/bin/busybox", "busybox-static"),
)


def missing_packages(system: System, requirements: Sequence[Requirement] = REQUIREMENTS) -> list[str]:
    """Returns the Debian packages to install."""
    return sorted({requirement.package for requirement in requirements if not requirement.met(system)})


def is_debian_like(os_release: str) -> bool:
    """Returns whether /etc/os-release describes Debian, Ubuntu or a derivative."""
    words = re.findall(r'^(?:ID|ID_LIKE)="?([^"\n]+)', os_release, re.MULTILINE)
    return not {"debian", "ubuntu"}.isdisjoint(" ".join(words).split())


def package_problem(packages: Sequence[str], *, debian: bool) -> Problem:
    """Builds the problem for packages that the user has to install."""
    names = " ".join(packages)
    fix = f"apt-get install {names}" if debian else f"install the equivalents of Debian's {names}"
    return Problem(f"programs are missing: {names}", fix)


def apt_get(
    *arguments: str, runner: Runner = run, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Runs apt-get, and again with new package lists if it fails: they may be missing or old on a fresh machine.

    Raises:
        ClusterError: It failed again, or the lists cannot be updated.
    """
    command = ["apt-get", *arguments]
    if runner(command, check=False, timeout=600, env=env, cwd=cwd).returncode != 0:
        runner(["apt-get", "update"], timeout=600, env=env)
        runner(command, timeout=600, env=env, cwd=cwd)


def ensure_packages(system: System, progress: Progress, runner: Runner = run) -> None:
    """Installs missing packages, and shows that; needs root on Debian or Ubuntu.

    Raises:
        HostError: They cannot be installed.
    """
    packages = missing_packages(system)
    if not packages:
        return
    debian = is_debian_like(system.read(Path("/etc/os-release"))) and system.which("apt-get")
    if not debian or not system.is_root():
        raise HostError([package_problem(packages, debian=debian)])
    options, env = ("--yes", "--no-install-recommends"), {"DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"installing missing packages: {' '.join(packages)}"):
        try:
            apt_get("install", *options, *packages, runner=runner, env=env)
        except ClusterError as error:
            problem = package_problem(packages, debian=True)
            raise HostError([Problem(f"{problem.what}, and installing them failed: {error}", problem.fix)]) from error
    left = missing_packages(system)
    if left:
        raise HostError([package_problem(left, debian=True)])
