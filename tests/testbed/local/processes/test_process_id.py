import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gpufleet_testbed.local.processes.process_id import ProcessId, start_time


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_command_name_with_brackets_and_blanks_is_parsed() -> None:
    fields = ["S", *map(str, range(1, 30))]
    assert start_time(f"12 (a) b (c)) {' '.join(fields)}") == 19


def test_a_running_process_is_alive_until_it_is_ended(sleeper: "subprocess.Popen[bytes]") -> None:
    identity = ProcessId.of(sleeper.pid)
    before = identity.alive
    assert identity.end(signal.SIGTERM)
    assert (before, identity.alive) == (True, False)
    assert sleeper.wait() == -signal.SIGTERM


def test_a_recycled_pid_is_neither_alive_nor_ended(sleeper: "subprocess.Popen[bytes]") -> None:
    identity = ProcessId.of(sleeper.pid)
    for other in (replace(identity, start=identity.start + 1), replace(identity, boot="another boot")):
        assert not other.alive
        assert other.end(signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        identity = ProcessId.of(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not identity.alive


def test_no_process_is_an_error() -> None:
    with pytest.raises(ProcessLookupError):
        ProcessId.of(2**22 + 1)


def test_a_process_that_does_not_end_is_reported(sleeper: "subprocess.Popen[bytes]") -> None:
    assert not ProcessId.of(sleeper.pid).end(0, timeout=0.05)
