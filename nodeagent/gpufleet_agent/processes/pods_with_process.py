"""Finds the pods that still have a process, in the cgroups of all processes of the node.

The kubelet drops a pod that is deleted by force immediately, while its containers run for up to their grace period.
Their processes show that, even if the API and the kubelet's list do not contain the pod.
"""

import os
from pathlib import Path

from gpufleet_agent.processes.pod_lookup import PROC, pods_of_process

_ENDED_STATES = frozenset("ZX")
"""A zombie has released its devices, and stays until its parent has read its exit status."""


def sees_node_processes() -> bool:
    """Returns whether this process can see those of other containers: it shares the host's PID namespace."""
    return os.getpid() != 1


def pods_with_process(uids: frozenset[str], proc: Path = PROC) -> frozenset[str]:
    """Returns those of the pods, by UID, that have a process. Reads a file per process of the node.

    Args:
        uids: The pods in question.
        proc: Of the host's PID namespace.

    Raises:
        OSError: The processes cannot be listed.
    """
    found: set[str] = set()
    with os.scandir(proc) as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            wanted = uids.intersection(pods_of_process(int(entry.name), proc) or ())
            if wanted and not wanted <= found and not _has_ended(Path(entry.path)):
                found |= wanted
                if found == uids:
                    break
    return frozenset(found)


def _has_ended(process: Path) -> bool:
    try:
        stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    # `PID (command) state ...`: the command may contain anything.
    return stat.rpartition(")")[2].split()[0] in _ENDED_STATES
