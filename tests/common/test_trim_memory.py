"""Giving back the memory of files that only the start needed."""

import subprocess
import sys

from gpufleet_common.trim_memory import file_ranges

SMAPS = """\
55d0c8a00000-55d0c8a01000 r--p 00000000 fe:00 18  /usr/bin/python3
Size:                  4 kB
Anonymous:             0 kB
55d0c8a01000-55d0c8a80000 r-xp 00001000 fe:00 18  /usr/bin/python3
Size:                508 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
55d0c9000000-55d0c9100000 rw-p 00000000 00:00 0  [heap]
Anonymous:          1024 kB
7f0000000000-7f0000100000 r-xp 00000000 fe:00 19  /usr/lib/with text relocations.so (deleted)
Anonymous:             4 kB
7f0000120000-7f0000130000 r--p 00100000 fe:00 19  /usr/lib/relocated constants.so
Anonymous:            12 kB
7f0000140000-7f0000150000 r--s 00000000 fe:00 21  /usr/lib/shared.cache
Anonymous:             0 kB
7f0000200000-7f0000300000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7f0000400000-7f0000500000 rwxp 00000000 fe:00 20  /usr/lib/jit.so
Anonymous:             0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
"""


def test_only_unchanged_code_and_constants_of_files_are_released() -> None:
    assert list(file_ranges(SMAPS.splitlines())) == [
        (0x55D0C8A00000, 0x55D0C8A01000),
        (0x55D0C8A01000, 0x55D0C8A80000),
    ]


def test_process_releases_memory_and_continues() -> None:
    script = """
import json, pathlib, ssl
from gpufleet_common.trim_memory import release_file_pages
rss = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1])
ssl.create_default_context()
before = rss()
released = release_file_pages()
after = rss()
print(released > 2**20, after < before, json.loads(json.dumps({"still": ssl.create_default_context() is not None})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout == "True True {'still': True}\n"


def test_free_heap_below_used_memory_is_returned() -> None:
    script = """
import ctypes, pathlib
from gpufleet_common.trim_memory import release_free_heap
rss = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1])
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
blocks = [libc.malloc(100_000) for _ in range(500)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:
    libc.free(block)
before = rss()
release_free_heap()
print(before - rss() > 8000)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout == "True\n"


def test_threads_share_one_heap() -> None:
    script = """
import ctypes, threading
from gpufleet_common.trim_memory import share_one_heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
share_one_heap()
barrier = threading.Barrier(4)
def allocate():
    barrier.wait()
    libc.malloc(1000)
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.count("<heap ") == 1
