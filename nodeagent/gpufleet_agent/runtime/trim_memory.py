"""Releases memory that only the start of the process needed.

Loading Python, gRPC and OpenSSL maps about 20 MiB of machine code, most of which runs once. Its pages are clean and
backed by files, so the kernel may drop them, but does so only under pressure; until then they count as this process's
memory. After the release, pages that are still used come back one by one from the page cache.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 10.0
"""Time after the start at which the agent runs only its regular loops."""

_MADV_DONTNEED = 4
_SMAPS = Path("/proc/self/smaps")


def code_ranges(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yields the address ranges of machine code that is unmodified, as (start, end).

    A range with anonymous pages was written to (text relocations, a debugger) and is left out, because the changes
    would be lost.

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
    """Advises the kernel to drop the pages of code loaded so far; returns their size in bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    total = 0
    with _SMAPS.open(encoding="utf-8", errors="surrogateescape") as smaps:
        ranges = list(code_ranges(smaps))
    for start, end in ranges:
        if libc.madvise(start, end - start, _MADV_DONTNEED) == 0:
            total += end - start
        else:
            # Locked memory, or a sandbox that forbids it. Not essential.
            log.debug("releasing code pages failed", error=os.strerror(ctypes.get_errno()))
    return total
