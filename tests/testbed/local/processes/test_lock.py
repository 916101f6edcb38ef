import os
import subprocess
import sys
from pathlib import Path

from gpufleet_testbed.local.processes.lock import Lock, holder


def test_only_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "cluster.lock"
    assert holder(path) == "nobody"
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
