"""Reads and replaces a state file while other processes read it."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gpufleet_simgpu.model import SimNode
from gpufleet_simgpu.text import StateFormatError, parse, render

STATE = "gpus.state"
"""Name of the state file, in the folder of the library."""


def read_state(path: Path) -> SimNode:
    """Reads the node of a state file.

    Raises:
        OSError: It cannot be read.
        StateFormatError: It is not a state file; the message contains its path.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except StateFormatError as error:
        raise StateFormatError(f"{path}: {error}") from error


def write_state(path: Path, node: SimNode) -> None:
    """Replaces the state file atomically: a reader sees the old node or the new one."""
    text = render(node)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        scratch.chmod(0o644)  # agents in containers read it as another user
        scratch.replace(path)
    except BaseException:  # KeyboardInterrupt included: no scratch file may stay
        scratch.unlink(missing_ok=True)
        raise


def edit(path: Path, change: Callable[[SimNode], SimNode]) -> SimNode:
    """Replaces the node by the result of `change`; edits of several processes are serialized."""
    with _locked(path.parent):
        node = change(read_state(path))
        write_state(path, node)
        return node


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder: a lock on the file would be lost when the file is replaced."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
