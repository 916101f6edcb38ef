"""The lock file that lets only one local cluster exist per cache folder."""

import fcntl
import os
from pathlib import Path


class Lock:
    """A locked file. Whoever holds a copy of its descriptor holds the lock; it is free when all copies are closed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def try_acquire(cls, path: Path) -> "Lock | None":
        """Take the lock; None when somebody else has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return cls(descriptor)

    def close(self) -> None:
        """Give up this copy."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def holder(path: Path) -> str:
    """Who took the lock, for messages."""
    try:
        return f"process {path.read_text() or '?'}"
    except FileNotFoundError:
        return "nobody"
