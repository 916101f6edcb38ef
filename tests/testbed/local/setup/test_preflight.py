import json
from dataclasses import replace
from pathlib import Path

import pytest

from gpufleet_testbed.config import ClusterConfig
from gpufleet_testbed.local.setup import preflight
from gpufleet_testing.testbed import FakeSystem

ROOT = Path("/cache/cluster")
CONFIG = ClusterConfig()
V1 = "\n".join(
    f"3{index} 30 0:2{index} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}"
    for index, name in enumerate(("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer"))
)
V2 = "25 24 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.fixture
def good(system: FakeSystem) -> FakeSystem:
    system.files[Path("/proc/self/mountinfo")] = V1
    system.results = [
        ("openssl version", (0, "OpenSSL 3.0.16")),
        ("link show", (1, "")),
        ("route show", (0, "[]")),
    ]
    return system


def test_a_good_machine_has_no_problems(good: FakeSystem, tmp_path: Path) -> None:
    assert preflight.basic_problems(good, ROOT, CONFIG) == []
    assert preflight.kernel_problems(good, tmp_path) == []
    assert preflight.network_problems(good, CONFIG, ROOT) == []
    assert not any("modprobe" in line for line in good.ran)


def test_other_system_needs_kind(good: FakeSystem) -> None:
    good.name, good.machine = "Darwin", "arm64"
    (problem,) = preflight.basic_problems(good, ROOT, CONFIG)
    assert (
        str(problem)
        == "the local provider runs on Linux on x86_64 or aarch64, not Darwin arm64. Fix: use such a machine"
    )


def test_missing_root_and_missing_packages_are_named_together(good: FakeSystem) -> None:
    good.root = False
    good.programs_missing = {"runc"}
    good.files[Path("/etc/os-release")] = "ID=debian"
    first, second = preflight.basic_problems(good, ROOT, CONFIG)
    assert "needs root" in first.what
    assert "sudo" in first.fix
    assert second.fix == "apt-get install runc"


@pytest.mark.parametrize("folder", ["/run/cache", "/var/lib/cache", "/var/log/cache"])
def test_cache_that_nodes_would_hide_is_rejected(good: FakeSystem, folder: str) -> None:
    (problem,) = preflight.basic_problems(good, Path(folder) / "cluster", CONFIG)
    assert "which a node replaces with its own" in problem.what
    assert "set GPUFLEET_CACHE" in problem.fix


def test_path_too_long_for_sockets_is_rejected(good: FakeSystem) -> None:
    (problem,) = preflight.basic_problems(good, Path("/") / ("x" * 90) / "cluster", CONFIG)
    assert "too long for a Unix socket" in problem.what


def test_full_disk_is_rejected(good: FakeSystem) -> None:
    good.free = 100 << 20
    (problem,) = preflight.basic_problems(good, ROOT, CONFIG)
    assert "only 100 MiB left" in problem.what


@pytest.mark.parametrize(
    ("part", "what", "fix"),
    [
        ("ip link add b0", "bridge and veth", "modprobe -a bridge veth"),
        ("bridge-nf-call-iptables", "do not pass through iptables", "modprobe br_netfilter"),
        ("iptables -t nat", "iptables lacks features", "modprobe -a nf_tables"),
        ("mount -t overlay", "overlayfs", "modprobe overlay"),
    ],
)
def test_missing_kernel_feature_is_named_after_loading_modules(
    good: FakeSystem, tmp_path: Path, part: str, what: str, fix: str
) -> None:
    good.results.insert(0, (part, (1, "")))
    (problem,) = preflight.kernel_problems(good, tmp_path)
    assert what in problem.what
    assert fix in problem.fix
    assert "modprobe --all overlay bridge veth br_netfilter" in good.ran


def test_unprivileged_container_is_one_problem(good: FakeSystem, tmp_path: Path) -> None:
    good.results.insert(0, ("unshare", (1, "")))
    (problem,) = preflight.kernel_problems(good, tmp_path)
    assert "cannot create namespaces" in problem.what
    assert "--privileged" in problem.fix


def test_an_old_openssl_is_named(good: FakeSystem, tmp_path: Path) -> None:
    good.results.insert(0, ("openssl version", (0, "OpenSSL 1.1.1n")))
    (problem,) = preflight.kernel_problems(good, tmp_path)
    assert "this is OpenSSL 1.1.1n" in problem.what


def test_a_container_without_kmsg_is_named(good: FakeSystem, tmp_path: Path) -> None:
    good.paths_missing = {Path("/dev/kmsg")}
    (problem,) = preflight.kernel_problems(good, tmp_path)
    assert "--device /dev/kmsg" in problem.fix


def test_missing_v1_controllers_are_named(good: FakeSystem) -> None:
    (problem,) = preflight.cgroup_problems(V1.replace("memory", "hugetlb"), good)
    assert problem.what == "cgroup v1 lacks the controllers memory"


def test_v2_is_judged_by_its_list_of_controllers(good: FakeSystem) -> None:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    good.files[controllers] = "cpuset cpu io memory pids"
    assert preflight.cgroup_problems(V2, good) == []
    good.files[controllers] = "io"
    (problem,) = preflight.cgroup_problems(V2, good)
    assert problem.what == "cgroup v2 lacks the controllers cpu, cpuset, memory, pids"


def test_read_only_or_missing_cgroups_are_named(good: FakeSystem) -> None:
    (read_only,) = preflight.cgroup_problems(V1.replace("cpuset rw", "cpuset ro"), good)
    assert read_only.what == "/sys/fs/cgroup/cpuset is read-only"
    (none,) = preflight.cgroup_problems("", good)
    assert "no cgroup file system" in none.what


def test_link_of_another_cache_is_named_with_the_fix(good: FakeSystem) -> None:
    alias = json.dumps([{"ifalias": "gpufleet test bed in /other/cluster"}])
    good.results.insert(0, ("link show", (0, alias)))
    (problem,) = preflight.network_problems(good, CONFIG, ROOT)
    assert problem.fix == "GPUFLEET_CACHE=/other make cluster-down"
    assert preflight.network_problems(good, CONFIG, Path("/other/cluster")) == []


def test_a_taken_network_is_named(good: FakeSystem) -> None:
    good.results.insert(0, ("route show", (0, json.dumps([{"dst": "10.1.0.0/16", "dev": "eth0"}]))))
    (problem,) = preflight.network_problems(good, replace(CONFIG, network="10.1.0.0/16"), ROOT)
    assert "which this machine routes to eth0" in problem.what
