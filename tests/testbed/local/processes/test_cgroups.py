import os
from pathlib import Path
from typing import Any

import pytest

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.local.processes import cgroups
from gpufleet_testbed.local.processes.cgroups import Hierarchy

V1 = """\
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/freezer ro,relatime - cgroup cgroup rw,freezer
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "25 24 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hierarchies_of_v1_are_distinguished() -> None:
    found = {hierarchy.mount.name: hierarchy for hierarchy in cgroups.parse_mountinfo(V1)}
    assert found["cpu,cpuacct"].controllers == {"cpu", "cpuacct"}
    assert found["systemd"].controllers == {"name=systemd"}
    assert not found["freezer"].writable
    assert found["unified"].version == 2


def test_v2_mount_next_to_v1_is_only_cleaned() -> None:
    managed = cgroups.managed(cgroups.parse_mountinfo(V1))
    assert {hierarchy.version for hierarchy in managed} == {1}
    (only,) = cgroups.managed(cgroups.parse_mountinfo(V2))
    assert (only.version, only.mount) == (2, Path("/sys/fs/cgroup"))


@pytest.fixture
def v1(tmp_path: Path) -> tuple[Hierarchy, ...]:
    for name in ("cpuset", "freezer"):
        (tmp_path / name).mkdir()
    for name, value in (("cpus", "0-1"), ("mems", "0")):
        (tmp_path / "cpuset" / f"cpuset.{name}").write_text(value)
    return tuple(Hierarchy(tmp_path / name, 1, frozenset({name})) for name in ("cpuset", "freezer"))


def test_freezing_waits_for_the_kernel(v1: tuple[Hierarchy, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = v1[1].mount / "a"
    folder.mkdir()
    (folder / "freezer.state").write_text("THAWED")
    cgroups.freeze(v1, "a", frozen=True)
    assert (folder / "freezer.state").read_text() == "FROZEN"
    cgroups.freeze(v1, "a", frozen=False)
    assert (folder / "freezer.state").read_text() == "THAWED"


def test_v2_is_frozen_when_its_events_say_so(tmp_path: Path) -> None:
    tree = (Hierarchy(tmp_path, 2, frozenset()),)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    cgroups.freeze(tree, "a", frozen=True)
    assert (tmp_path / "a" / "cgroup.freeze").read_text() == "1"
    with pytest.raises(ClusterError, match="did not become 'frozen 0'"):
        cgroups.freeze(tree, "a", frozen=False, timeout=0.05)


def test_a_machine_without_a_freezer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no cgroup freezer"):
        cgroups.freeze((Hierarchy(tmp_path, 1, frozenset({"cpu"})),), "a", frozen=True)


def test_processes_are_found_in_all_hierarchies_and_depths(v1: tuple[Hierarchy, ...]) -> None:
    for hierarchy, pids in zip(v1, ("1\n2\n", "2\n3\n0\n"), strict=True):
        folder = hierarchy.mount / "a" / "b"
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(pids)
    assert cgroups.processes(v1, "a") == {1, 2, 3}


def test_cgroup_that_is_removed_meanwhile_is_skipped(
    v1: tuple[Hierarchy, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, pid in (("gone", 1), ("stays", 2)):
        folder = v1[0].mount / "a" / name
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(f"{pid}\n")
    read = os.scandir

    def scandir(path: str | Path) -> Any:
        if Path(path).name == "gone":
            Path(path, "cgroup.procs").unlink()
            Path(path).rmdir()
        return read(path)

    monkeypatch.setattr(os, "scandir", scandir)

    assert cgroups.processes(v1, "a") == {2}


def test_removing_removes_the_whole_tree(v1: tuple[Hierarchy, ...]) -> None:
    for hierarchy in v1:
        (hierarchy.mount / "a" / "b" / "c").mkdir(parents=True)
        (hierarchy.mount / "other").mkdir()
    cgroups.remove(v1, "a")
    assert not any((hierarchy.mount / "a").exists() for hierarchy in v1)
    assert all((hierarchy.mount / "other").exists() for hierarchy in v1)


def test_what_can_not_be_removed_is_named(v1: tuple[Hierarchy, ...]) -> None:
    folder = v1[0].mount / "a"
    folder.mkdir()
    (folder / "cgroup.procs").write_text("")  # a plain folder with a file in it can't be removed by rmdir
    with pytest.raises(ClusterError, match=str(folder)):
        cgroups.remove(v1, "a", timeout=0.05)
