"""Asks the kernel which pod a process runs in."""

from pathlib import Path

from gpufleet_agent.overuse.cgroup import pod_uids

PROC = Path("/proc")


def pods_of_process(pid: int, proc: Path = PROC) -> tuple[str, ...] | None:
    """UIDs of the pods that a process runs in, none for a process of the host; None: it is gone, or not to be seen.

    Asked anew each time, for the kernel gives a number to another process soon. Needs the host's PID namespace: in
    another, the number that the driver tells is nobody's, or somebody else's.
    """
    try:
        return pod_uids((proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        # Gone before or while it is read, or another's; or this process has no file descriptor left.
        return None
