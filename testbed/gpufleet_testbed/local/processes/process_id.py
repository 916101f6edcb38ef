"""Identifies a process so that a recycled PID is not mistaken for it."""

import os
import select
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_START_TIME = 19  # of the fields after the command name in /proc/PID/stat, counted from 0


@dataclass(frozen=True)
class ProcessId:
    """A process: its PID, its start in clock ticks after boot, and the boot ID."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Identifies a running process.

        Raises:
            ProcessLookupError: It does not exist.
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessLookupError(f"no process {pid}") from error
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(pid, start_time(stat), boot)

    @property
    def alive(self) -> bool:
        """Whether this process runs; a zombie does not."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return ProcessId.of(self.pid) == self and stat.rpartition(")")[2].split()[0] not in "ZX"
        except (ProcessLookupError, FileNotFoundError):
            return False

    def end(self, number: int = signal.SIGKILL, timeout: float = 10) -> bool:
        """Signals the process and waits for its end.

        Returns:
            False when it still runs after `timeout` seconds.
        """
        try:
            # The descriptor refers to one process: if it is alive after opening, the PID cannot be recycled any more.
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)


def start_time(stat: str) -> int:
    """Parses the start time of /proc/PID/stat; the command name in it may contain blanks and brackets."""
    return int(stat.rpartition(")")[2].split()[_START_TIME])
