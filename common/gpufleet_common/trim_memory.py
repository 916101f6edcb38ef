"""Releases memory that only the start of the process needed.

Loading Python and the libraries maps about 25 MiB of machine code and constants, most of which are used once. Their
pages are clean and backed by files, so the kernel may drop them, but does so only under pressure; until then they count
as this process's memory. After the release, pages that are still used come back one by one from the page cache.
"""

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 10.0
"""Time after the start at which the agent runs only its regular loops."""

_MADV_DONTNEED = 4
_M_ARENA_MAX = -8
_READ_ONLY = frozenset({"r-xp", "r--p"})
"""Permissions of private mappings of code and constants."""
_SMAPS = Path("/proc/self/smaps")


def share_one_heap() -> None:
    """Makes all threads allocate from one heap. Must be called before threads start.

    glibc gives threads heaps of their own, which are never full. Most of the threads wait, and the interpreter's lock
    lets one of the others run at a time, so they seldom wait for the heap.
    """
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def release_free_heap() -> None:
    """Returns the free pages of the heap to the kernel: after large documents, most of a heap can be free."""
    with suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def file_ranges(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yields the address ranges of unmodified code and constants of files, as (start, end).

    A range with anonymous pages was written to (relocations, a debugger) and is left out, because the changes would be
    lost.

    Args:
        smaps: Lines of `/proc/PID/smaps`.
    """
    candidate: tuple[int, int] | None = None
    for line in smaps:
        key, _, rest = line.partition(" ")
        if not key.endswith(":"):
            permissions, path = rest[:4], rest.partition("/")[2]
            start, _, end = key.partition("-")
            candidate = (int(start, 16), int(end, 16)) if permissions in _READ_ONLY and path else None
        elif key == "Anonymous:" and candidate is not None and rest.split()[0] == "0":
            yield candidate


def release_file_pages() -> int:
    """Advises the kernel to drop the pages of code and constants mapped so far; returns their size in bytes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    total = 0
    with _SMAPS.open(encoding="utf-8", errors="surrogateescape") as smaps:
        ranges = list(file_ranges(smaps))
    for start, end in ranges:
        if libc.madvise(start, end - start, _MADV_DONTNEED) == 0:
            total += end - start
        else:
            # Locked memory, or a sandbox that forbids it. Not essential.
            log.debug("releasing pages of files failed", error=os.strerror(ctypes.get_errno()))
    return total
