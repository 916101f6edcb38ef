"""Looks up the pod that a process runs in."""

from pathlib import Path

from gpufleet_agent.processes.cgroup import pod_uids

PROC = Path("/proc")


def pods_of_process(pid: int, proc: Path = PROC) -> tuple[str, ...] | None:
    """Returns the UIDs of the pods that a process runs in, none for a process of the host.

    Returns None if the process has ended or is not visible. Results must not be cached, because the kernel soon reuses
    a PID. Needs the host's PID namespace: in another one, the driver's PID belongs to no process, or to a wrong one.
    """
    try:
        return pod_uids((proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        # Ended before or during the read, or not readable; or this process has run out of file descriptors.
        return None
