"""Stores the fault file: always complete, and on the disk when `write` returns.

Every call may block as long as the file system does, so it must be made in a separate thread.
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
    """A file in its own directory, which is created by the first write.

    The directory must not be that of the kubelet's plugin sockets, which the kubelet empties when it starts.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = directory / FILE_NAME
        self._written: _Signature | None = None

    def read(self) -> bytes | None:
        """Returns the content; None: there is no file. Removes what a process that was killed during a write has left.

        Raises:
            OSError: The file cannot be read.
            CheckpointError: It is not a regular file.
        """
        for part in self._directory.glob(_PART):
            # If another process is writing it now, that process detects the removal and writes again.
            with suppress(OSError):
                part.unlink()
        try:
            # Without O_NONBLOCK, opening a named pipe would block.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):  # checked first: fdopen rejects a directory
                raise CheckpointError("not a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        self._written = _signature(found)
        return content

    def set_aside(self) -> Path:
        """Renames an unreadable file to keep it for inspection; replaces the one before.

        Raises:
            OSError: The file cannot be renamed.
        """
        aside = self._directory / UNREADABLE_FILE_NAME
        self.path.replace(aside)
        return aside

    def write(self, content: bytes) -> None:
        """Replaces the file atomically: it is the old or the new one at any moment, even after a power failure.

        Raises:
            OSError: Writing failed, or is not certain; the file is the old or the new one.
            CheckpointError: The content is too long to be read again.
        """
        if len(content) > MAX_BYTES:
            raise CheckpointError(f"longer than {MAX_BYTES} bytes")
        self._directory.mkdir(parents=True, exist_ok=True)
        # A unique name: two agents at the same time, as when a pod is replaced by force, must not write to one file.
        part = self._directory / _PART.replace("*", os.urandom(8).hex())
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
                written = _signature(os.fstat(descriptor))
            part.replace(self.path)
        except BaseException:  # of any kind: an incomplete file must not remain
            with suppress(OSError):
                part.unlink()
            raise
        self._written = written
        self._sync_directory()

    def is_as_written(self) -> bool:
        """Returns whether the file is the one that was written or read last, neither removed nor replaced.

        Raises:
            OSError: The file cannot be checked.
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
