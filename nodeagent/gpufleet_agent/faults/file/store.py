"""The file on the node: always whole, on the disk when `write` returns, and never in the way of anybody.

Every call may block for as long as the file system pleases, so only a thread of its own calls.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from gpufleet_agent.faults.file.format import MAX_BYTES, CheckpointError

FILE_NAME = "faults.json"
UNREADABLE_FILE_NAME = "faults.json.unreadable"
_PART = ".faults.*.part"

_Signature = tuple[int, int, int]


class CheckpointFile:
    """One file in a directory of its own, which is made when something is to be written.

    It must not be among the kubelet's plugin sockets: the kubelet empties that directory when it starts.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / FILE_NAME
        self._written: _Signature | None = None

    def read(self) -> bytes | None:
        """The content; None: there is no file. What a process that was killed while it wrote has left goes.

        Raises:
            OSError: It can't be read.
            CheckpointError: It is no file, or too long to be ours.
        """
        for part in self._directory.glob(_PART):
            # Should another process be writing it just now, that one finds out and writes anew.
            with suppress(OSError):
                part.unlink()
        try:
            # Without O_NONBLOCK a pipe of that name would be waited for.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):  # asked first: Python makes no file of a directory
                raise CheckpointError("not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        self._written = _signature(found)
        return content

    def set_aside(self) -> Path:
        """Rename what isn't ours, for somebody to look at; the one before it goes.

        Raises:
            OSError: It can't be renamed.
        """
        aside = self._directory / UNREADABLE_FILE_NAME
        self.path.replace(aside)
        return aside

    def write(self, content: bytes) -> None:
        """Replace the file. It is the old one or the new one at any moment, also should the power fail.

        Raises:
            OSError: It can't be written, or not for sure; the old one stands, or else the new one.
            CheckpointError: It is too long to be read again.
        """
        if len(content) > MAX_BYTES:
            raise CheckpointError(f"longer than {MAX_BYTES} bytes")
        self._directory.mkdir(parents=True, exist_ok=True)
        # A name of its own: two agents at once, as while a pod is replaced by force, must not write into one file.
        part = self._directory / _PART.replace("*", os.urandom(8).hex())
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
                written = _signature(os.fstat(descriptor))
            part.replace(self.path)
        except BaseException:  # whatever it is, half a file mustn't stay
            with suppress(OSError):
                part.unlink()
            raise
        self._written = written
        self._sync_directory()

    def is_as_written(self) -> bool:
        """Whether the file is the one that was written, or read, last: nobody has taken it away or replaced it.

        Raises:
            OSError: It can't be looked at.
        """
        try:
            return _signature(self.path.stat()) == self._written
        except FileNotFoundError:
            return self._written is None

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _signature(found: os.stat_result) -> _Signature:
    return found.st_ino, found.st_mtime_ns, found.st_size
