"""The real supervisor as an ordinary process: its protocol, its reaping and its lifeline."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.local.processes.process_id import ProcessId
from gpufleet_testbed.local.processes.supervisor_client import SupervisorClient
from gpufleet_testbed.local.setup.command_lines import SUPERVISOR
from gpufleet_testbed.waiting import wait_until


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-I", "-S", str(SUPERVISOR), "--lifeline", str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        wait_until((tmp_path / "s").is_socket, "the supervisor listens", timeout=10)
        yield process
        process.kill()


@pytest.fixture
def control(supervisor: "subprocess.Popen[bytes]", tmp_path: Path) -> SupervisorClient:
    return SupervisorClient(tmp_path / "s")


def test_a_unit_writes_to_its_log_and_its_exit_is_known(control: SupervisorClient, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = control.start("unit", ["sh", "-c", "echo out; echo err >&2; echo $WORD; exit 3"], log, {"WORD": "env"})
    wait_until(lambda: control.units()["unit"].exit == 3, "it has ended", timeout=10)
    assert control.units()["unit"].pid == pid
    assert log.read_text() == "out\nerr\nenv\n"
    with pytest.raises(ClusterError, match=r"unit ended with status 3(.|\n)*env"):
        control.require("unit", log)


def test_a_unit_is_stopped_and_started_again_as_before(control: SupervisorClient, tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = control.start("unit", ["sh", "-c", "echo started; exec sleep 60"], log, {})
    with pytest.raises(ClusterError, match="is already running"):
        control.restart("unit")
    wait_until(lambda: log.read_text() == "started\n", "it has started", timeout=10)
    control.stop("unit")
    assert control.units()["unit"].exit == -signal.SIGTERM
    control.stop("unit")  # stopping what has ended is no error
    assert control.restart("unit") != first
    wait_until(lambda: log.read_text() == "started\nstarted\n", "it has started again", timeout=10)
    control.stop("unit")


def test_a_unit_that_ignores_the_signal_is_killed(control: SupervisorClient, tmp_path: Path) -> None:
    log = tmp_path / "log"
    control.start("unit", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log, {})
    wait_until(lambda: log.exists() and log.read_text() == "ready\n", "the trap is set", timeout=10)
    control.stop("unit", timeout=0.1)
    assert control.units()["unit"].exit == -signal.SIGKILL


def test_invalid_requests_return_an_error(control: SupervisorClient, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="No such file"):
        control.start("unit", ["/no/such/program"], tmp_path / "log", {})
    with pytest.raises(ClusterError, match="KeyError"):
        control.restart("unknown")
    assert control.units() == {}


def test_supervisor_ends_with_its_lifeline(supervisor: "subprocess.Popen[bytes]") -> None:
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    assert supervisor.wait(10) == 0


def test_dead_supervisor_is_an_error_with_the_socket(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=f"no response from {tmp_path / 'none'}"):
        SupervisorClient(tmp_path / "none").units()


def test_units_do_not_inherit_the_ignored_sigpipe(control: SupervisorClient, tmp_path: Path) -> None:
    log = tmp_path / "log"
    control.start("unit", ["sh", "-c", "grep SigIgn /proc/self/status"], log, {})
    wait_until(lambda: control.units()["unit"].exit == 0, "it has ended", timeout=10)
    assert int(log.read_text().split()[1], 16) & 1 << (signal.SIGPIPE - 1) == 0


def test_a_unit_leads_its_own_session(control: SupervisorClient, tmp_path: Path) -> None:
    pid = control.start("unit", ["sleep", "60"], tmp_path / "log", {})
    assert os.getsid(pid) == pid
    identity = ProcessId.of(pid)
    control.stop("unit")
    assert not identity.alive
