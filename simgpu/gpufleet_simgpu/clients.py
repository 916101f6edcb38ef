"""Finds the processes that use a simulated driver, as `lsof /dev/nvidiactl` does for a real one.

A driver can be unloaded only when no process has one of its device nodes open. The library opens `nvidiactl` in its
folder at the first initialization, and closes it at the last shutdown.
"""

from pathlib import Path

CONTROL = "nvidiactl"
"""Name of the file that stands for the control device, in the folder of the library."""


def open_clients(folder: Path, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Returns the PIDs of the processes that have the library of this folder initialized, sorted.

    Args:
        folder: Of the library, as this process sees it. Containers may see it under another path.
        proc: Needs root to see the processes of other users.
    """
    control = (folder / CONTROL).stat()
    wanted = control.st_dev, control.st_ino
    return tuple(sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit() and _opens(entry, wanted)))


def _opens(process: Path, wanted: tuple[int, int]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # it has ended, or belongs to another user
        return False
    return any(_identity(descriptor) == wanted for descriptor in descriptors)


def _identity(descriptor: Path) -> tuple[int, int] | None:
    try:
        found = descriptor.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
