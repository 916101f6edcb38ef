"""Lets go of what only the start of the process needed.

Loading Python, gRPC and OpenSSL maps some 20 MiB of machine code, most of which runs once. It is clean and comes from
files, so the kernel may drop it, but does so only under pressure; until then it counts as this process's memory. Said
once that it isn't needed, what is used after all comes back page by page from the page cache.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 10.0
"""After the start; what runs from then on is what runs always."""

_MADV_DONTNEED = 4
_SMAPS = Path("/proc/self/smaps")


def code_ranges(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Addresses of machine code that is as it is in its file, each as start and end.

    A range with anonymous pages was written to (text relocations, a debugger) and is left out: what was written would
    be lost.

    Args:
        smaps: Lines of `/proc/PID/smaps`.
    """
    candidate: tuple[int, int] | None = None
    for line in smaps:
        key, _, rest = line.partition(" ")
        if not key.endswith(":"):
            permissions, path = rest[:4], rest.partition("/")[2]
            start, _, end = key.partition("-")
            candidate = (int(start, 16), int(end, 16)) if permissions == "r-xp" and path else None
        elif key == "Anonymous:" and candidate is not None and rest.split()[0] == "0":
            yield candidate


def release_code_pages() -> int:
    """Tell the kernel that the code loaded so far need not stay in memory; returns the bytes that this is about."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    total = 0
    with _SMAPS.open(encoding="utf-8", errors="surrogateescape") as smaps:
        ranges = list(code_ranges(smaps))
    for start, end in ranges:
        if libc.madvise(start, end - start, _MADV_DONTNEED) == 0:
            total += end - start
        else:
            # Locked memory, or a sandbox that forbids it. Nothing depends on it.
            log.debug("code kept in memory", error=os.strerror(ctypes.get_errno()))
    return total
