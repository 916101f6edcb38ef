"""Exit codes of the command, and its last lines."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from gpufleet_e2e.demo import cli, scenario
from gpufleet_e2e.demo.terminal import Terminal
from gpufleet_e2e.proof import Disagreement, WaitTimeoutError
from gpufleet_testbed import ClusterError, ConflictError, HostError, Problem, cache_dir
from gpufleet_testbed.local.processes.lock import Lock


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Separates these tests from a demo that runs on this machine."""
    monkeypatch.setenv("GPUFLEET_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ClusterError("helm: no such chart"), 3, "helm: no such chart"),
        (WaitTimeoutError("GPUTelemetry node-1 after 90 s"), 3, "GPUTelemetry node-1 after 90 s"),
        (WaitTimeoutError("x"), 3, "Run `make demo` to try again"),
        (HostError([Problem("no root", "sudo")]), 3, "no root. Fix: sudo"),
        (ConflictError("a cluster is running that is not the one asked for"), 3, "the demo cannot start"),
    ],
)
def test_failure_has_an_exit_code_and_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    def play(*_: object) -> int:
        raise error

    monkeypatch.setattr(cli, "run", play)
    assert cli.main([]) == code
    assert words in capsys.readouterr().out


def test_disagreement_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(terminal: Terminal, *_: object) -> int:
        return scenario.summarize(terminal, [Disagreement("a", "b", "c")])

    monkeypatch.setattr(cli, "run", play)
    assert cli.main(["up"]) == 1


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["sideways"])
    assert ended.value.code == 2
    assert "invalid choice: 'sideways'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("running", "said"),
    [(None, ["nothing is left running"]), (object(), ["the cluster keeps running", "make demo-down"])],
    ids=["during the start", "later"],
)
def test_interrupt_prints_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], running: object, said: list[str]
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupt)
    monkeypatch.setattr(cli, "status", lambda: running)
    assert cli.main([]) == 130
    out = capsys.readouterr().out
    assert all(words in out for words in said)


def test_only_one_demo_runs_at_a_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "run", lambda *_: 0)
    other = Lock.try_acquire(cache_dir() / "demo.lock")
    assert other is not None
    assert cli.main([]) == 3
    assert "runs the demo; wait until it ends" in capsys.readouterr().out
    other.close()
    assert cli.main([]) == 0


@pytest.mark.parametrize("ends", [0, ClusterError("x"), KeyboardInterrupt()], ids=str)
def test_cluster_is_released_after_every_end(monkeypatch: pytest.MonkeyPatch, ends: object) -> None:
    released = []

    def reported(*_: object) -> int:
        if isinstance(ends, BaseException):
            raise ends
        return 0

    monkeypatch.setattr(cli, "up", lambda _: SimpleNamespace(release=lambda: released.append(True)))
    monkeypatch.setattr(cli, "run_on", reported)
    monkeypatch.setattr(cli, "status", lambda: None)
    cli.main([])
    assert released == [True]
