import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpufleet_testbed.local.processes.lock import Lock, holder


def test_only_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "cluster.lock"
    assert holder(path) == "another process"
    first = Lock.try_acquire(path)
    assert first is not None
    assert Lock.try_acquire(path) is None
    assert holder(path) == f"process {os.getpid()}"
    first.close()
    second = Lock.try_acquire(path)
    assert second is not None
    second.close()


def test_a_child_with_the_descriptor_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "cluster.lock"
    lock = Lock.try_acquire(path)
    assert lock is not None
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,)
    ) as child:
        lock.close()
        assert Lock.try_acquire(path) is None
        assert child.stdin is not None
        child.stdin.close()
        child.wait()
    free = Lock.try_acquire(path)
    assert free is not None
    free.close()


def test_a_removed_lock_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.lock"
    lock = Lock.try_acquire(path)
    assert lock is not None
    lock.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_file_removed_before_it_is_locked_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "cluster.lock", os.open
    holders = [Lock.try_acquire(path)]

    def open_then_removed(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        if lock := holders.pop() if holders else None:
            lock.remove()
        return descriptor

    monkeypatch.setattr(os, "open", open_then_removed)
    second = Lock.try_acquire(path)
    assert second is not None
    assert os.path.samestat(path.stat(), os.fstat(second.descriptor))
    second.remove()
