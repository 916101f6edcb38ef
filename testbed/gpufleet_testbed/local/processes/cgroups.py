"""The cgroups of a cluster: one tree, in every v1 hierarchy or in the one of v2.

The tree gives each kubelet its own root (two kubelets under one root remove each other's pods), freezes a whole node,
and finds every process that is left.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.errors import ClusterError

_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids", "hugetlb")


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup hierarchy."""

    mount: Path
    version: int
    controllers: frozenset[str]
    """Controllers of a v1 hierarchy; empty for v2, which has them in cgroup.controllers."""
    writable: bool = True


def parse_mountinfo(text: str) -> tuple[Hierarchy, ...]:
    """Parses the cgroup hierarchies of /proc/self/mountinfo."""
    found: dict[Path, Hierarchy] = {}
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()
        mount, writable = Path(fields[4]), "rw" in fields[5].split(",")
        if kind[0] == "cgroup2":
            found[mount] = Hierarchy(mount, 2, frozenset(), writable)
        elif kind[0] == "cgroup":
            options = frozenset(kind[2].split(",")) - {"rw", "ro", "xattr", "clone_children"}
            found[mount] = Hierarchy(mount, 1, options, writable)
    return tuple(found.values())


def managed(found: Sequence[Hierarchy]) -> tuple[Hierarchy, ...]:
    """Selects hierarchies with controllers: the v1 ones if there are any, because then a v2 mount has none.

    runc also uses that v2 mount (systemd's hybrid layout), so cleanup covers all hierarchies.
    """
    return tuple(hierarchy for hierarchy in found if hierarchy.version == 1) or tuple(found)


def all_hierarchies() -> tuple[Hierarchy, ...]:
    """Returns every hierarchy of this machine."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text())


def hierarchies() -> tuple[Hierarchy, ...]:
    """Returns the hierarchies of this machine that have controllers."""
    return managed(all_hierarchies())


def create(tree: Iterable[Hierarchy], cgroup: str) -> list[Path]:
    """Creates a cgroup and its parents in every hierarchy.

    Returns:
        Its folder in each hierarchy; a process joins by writing to their cgroup.procs.
    """
    folders = []
    for hierarchy in tree:
        folder = hierarchy.mount
        for part in cgroup.split("/"):
            if hierarchy.version == 2:
                _delegate(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                _inherit_cpuset(folder)
        folders.append(folder)
    return folders


def freeze(tree: Iterable[Hierarchy], cgroup: str, *, frozen: bool, timeout: float = 10) -> None:
    """Freezes or thaws every process below a cgroup; returns once the kernel reports it.

    Raises:
        ClusterError: The kernel has no freezer, or did not finish in time.
    """
    for hierarchy in tree:
        folder = hierarchy.mount / cgroup
        if hierarchy.version == 2:
            (folder / "cgroup.freeze").write_text("1" if frozen else "0")
            _await(folder / "cgroup.events", f"frozen {int(frozen)}", timeout)
            return
        if "freezer" in hierarchy.controllers:
            state = "FROZEN" if frozen else "THAWED"
            (folder / "freezer.state").write_text(state)
            _await(folder / "freezer.state", state, timeout)
            return
    raise ClusterError("this kernel has no cgroup freezer")


def processes(tree: Iterable[Hierarchy], cgroup: str) -> set[int]:
    """Returns the PIDs of all processes at or below a cgroup, in any hierarchy."""
    pids: set[int] = set()
    for hierarchy in tree:
        for listing in _files(hierarchy.mount / cgroup, "cgroup.procs"):
            with suppress(OSError):  # removed meanwhile, or a threaded v2 cgroup
                pids.update(int(word) for word in listing.read_text().split())
    return pids - {0}


def remove(tree: Sequence[Hierarchy], cgroup: str, timeout: float = 10) -> None:
    """Kills all processes of a cgroup and removes it with everything below it.

    Raises:
        ClusterError: Processes or folders are left after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while any((hierarchy.mount / cgroup).is_dir() for hierarchy in tree):
        thaw_all(tree, cgroup)
        for pid in processes(tree, cgroup):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for hierarchy in tree:
            _remove_folders(hierarchy.mount / cgroup)
        if time.monotonic() > deadline:
            left = [str(h.mount / cgroup) for h in tree if (h.mount / cgroup).is_dir()]
            raise ClusterError(f"cannot remove {', '.join(left)}; processes: {sorted(processes(tree, cgroup))}")
        time.sleep(0.01)


def thaw_all(tree: Iterable[Hierarchy], cgroup: str) -> None:
    """Thaws a cgroup and every cgroup below it."""
    for hierarchy in tree:
        control, value = ("cgroup.freeze", "0") if hierarchy.version == 2 else ("freezer.state", "THAWED")
        for path in _files(hierarchy.mount / cgroup, control):
            with suppress(OSError):  # removed meanwhile
                path.write_text(value)


def _files(folder: Path, name: str) -> Iterator[Path]:
    """Yields the file of this name of each cgroup below a folder.

    Unlike `Path.rglob`, os.walk skips a cgroup that is removed while the tree is read.
    """
    for path, _, files in os.walk(folder):
        if name in files:
            yield Path(path, name)


def _remove_folders(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # still busy: the caller tries again
            Path(path).rmdir()


def _delegate(folder: Path) -> None:
    offered = set((folder / "cgroup.controllers").read_text().split())
    wanted = [f"+{name}" for name in _V2_CONTROLLERS if name in offered]
    (folder / "cgroup.subtree_control").write_text(" ".join(wanted))


def _inherit_cpuset(folder: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())


def _await(path: Path, expected: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while expected not in path.read_text():
        if time.monotonic() > deadline:
            raise ClusterError(f"{path} did not become {expected!r} within {timeout:g} s: {path.read_text()!r}")
        time.sleep(0.01)
