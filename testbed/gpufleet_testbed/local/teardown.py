"""Removes a local cluster from this machine, also after it was killed."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from gpufleet_testbed.local.layout import cgroup_name, link_name
from gpufleet_testbed.local.processes import cgroups
from gpufleet_testbed.local.processes.process_id import ProcessId
from gpufleet_testbed.local.setup import network

PROCESSES = "processes.json"


@dataclass(frozen=True)
class Processes:
    """The two processes of a cluster outside its namespaces."""

    monitor: ProcessId
    """Ends the cluster and cleans up."""
    namespace: ProcessId
    """The `unshare` process; all processes of the cluster end with it."""


def write_processes(root: Path, processes: Processes) -> None:
    """Records the processes of the cluster in this folder."""
    path = root / PROCESSES
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(asdict(processes), indent=2) + "\n")
    scratch.rename(path)


def read_processes(root: Path) -> Processes | None:
    """Reads the processes of the cluster in this folder, dead or alive; None when none were recorded."""
    try:
        content = json.loads((root / PROCESSES).read_text())
    except FileNotFoundError:
        return None
    return Processes(**{name: ProcessId(**fields) for name, fields in content.items()})


def tear_down(root: Path, name: str) -> None:
    """Ends every process of the cluster in `root` and removes everything that it created; may be repeated.

    Raises:
        ClusterError: Something could not be removed; the message names it.
    """
    tree, cgroup = cgroups.all_hierarchies(), cgroup_name(root)
    processes = read_processes(root)
    if processes is not None:
        # Frozen processes of cgroup v1 do not die: thaw the nodes first.
        cgroups.thaw_all(tree, cgroup)
        processes.namespace.end()
    cgroups.remove(tree, cgroup)
    network.disconnect(link_name(name), root)
    shutil.rmtree(root)
