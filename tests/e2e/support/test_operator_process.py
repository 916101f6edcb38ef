"""Operators are forked from a process that has imported them."""

import os
import signal
from pathlib import Path

from gpufleet_e2e.support.programs.operator_process import OperatorStarter


def test_operators_start_one_after_the_other_and_end_as_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "kubeconfig").write_text("{}")
    with OperatorStarter({**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}, log) as starter:
        assert starter.start("--version").wait(30) == 0
        assert starter.start("--no-such-flag").wait(30) == 2
        killed = starter.start("--version")
        killed.send(signal.SIGKILL)
        assert killed.wait(30) in (0, -signal.SIGKILL)
        killed.send(signal.SIGKILL)
    assert "--no-such-flag" in log.read_text()
