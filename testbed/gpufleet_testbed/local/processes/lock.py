"""Lock files: one for each local cluster of a cache folder, held by the cluster's monitor."""

import fcntl
import os
from pathlib import Path


class Lock:
    """A locked file. Every copy of its descriptor holds the lock, also in a child; it is free when all are closed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def try_acquire(cls, path: Path) -> "Lock | None":
        """Takes the lock; returns None when another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _is_open_at(path, descriptor):
                break
            # The previous holder removed the file between open and flock: a lock on it excludes no process.
            os.close(descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return cls(path, descriptor)

    def close(self) -> None:
        """Closes this copy and leaves the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def remove(self) -> None:
        """Removes the file, then closes this copy."""
        self.path.unlink(missing_ok=True)
        self.close()


def holder(path: Path) -> str:
    """Names the process that took the lock, for messages."""
    try:
        return f"process {path.read_text() or '?'}"
    except FileNotFoundError:
        return "another process"


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
