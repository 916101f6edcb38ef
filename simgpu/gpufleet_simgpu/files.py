"""Reading and replacing a state file while processes look at it."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gpufleet_simgpu.model import SimNode
from gpufleet_simgpu.text import StateFormatError, parse, render

STATE = "gpus.state"
"""Name of the state file beside the library."""


def read_state(path: Path) -> SimNode:
    """The node in a state file.

    Raises:
        OSError: It can't be read.
        StateFormatError: It isn't a state file; with its path.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except StateFormatError as error:
        raise StateFormatError(f"{path}: {error}") from error


def write_state(path: Path, node: SimNode) -> None:
    """Replace the state file in one step: a reader sees the old node or the new one."""
    text = render(node)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        scratch.chmod(0o644)  # agents in containers read it as another user
        scratch.replace(path)
    except BaseException:  # an interrupt, too, must leave no scratch file behind
        scratch.unlink(missing_ok=True)
        raise


def edit(path: Path, change: Callable[[SimNode], SimNode]) -> SimNode:
    """Replace the node by what `change` makes of it; edits by several processes come one after the other."""
    with _locked(path.parent):
        node = change(read_state(path))
        write_state(path, node)
        return node


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock is on the folder: one on the file would be lost with the file at the first replacement."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
