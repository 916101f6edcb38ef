"""The benchmark of live telemetry adds up the use of jobs and limits its arms as documented."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement.model import Share


@pytest.fixture(scope="module")
def bench(bench_on_path: None) -> Any:
    return importlib.import_module("telemetry_value")


@pytest.fixture(scope="module")
def shared_use(bench_on_path: None) -> Any:
    return importlib.import_module("sharing.shared_use")


def job(bench: ModuleType, start: int, promised: Share, memory: float, compute: float) -> Any:
    return bench.Job(start, promised, np.full(100, memory, np.float32), np.full(100, compute, np.float32))


def run(bench: ModuleType, jobs: list[Any], arm: str, steps: int = 100, allowed: object = ()) -> Any:
    setting = bench.Setting(1, steps, 3, 1)
    return bench.run(jobs, bench.Arm(arm), Strategy.BEST, setting, allowed)


def test_use_beyond_the_promise_is_visible_only_in_samples(bench: ModuleType) -> None:
    """Nine jobs promise a tenth each and use 60 % of a device: one device gets two in both arms."""
    greedy = [job(bench, 6 * i, Share(8_192, 10), 50_000, 60) for i in range(9)]
    blind, _ = run(bench, greedy, "promises")
    seeing, _ = run(bench, greedy, "live")
    assert blind.admitted == 9
    assert blind.over_percent > 0
    assert seeing.admitted == 9, "30 % of compute and 30 GB of memory are left on each"
    honest = [job(bench, 6 * i, Share(8_192, 10), 8_192, 10) for i in range(9)]
    assert run(bench, honest, "promises")[0].over_percent == 0


def test_live_refuses_jobs_if_samples_show_full_devices(bench: ModuleType) -> None:
    full = [job(bench, 6 * i, Share(8_192, 10), 80_000, 100) for i in range(9)]
    assert run(bench, full, "promises")[0].admitted == 9
    outcome, _ = run(bench, full, "live")
    assert outcome.admitted == 8
    assert outcome.over_percent == 0


def test_picks_newer_than_the_sample_are_debited(bench: ModuleType) -> None:
    """All jobs arrive together: no sample shows any use, so only the promises separate them."""
    burst = [job(bench, 0, Share(50_000, 50), 50_000, 50) for _ in range(9)]
    outcome, _ = run(bench, burst, "live")
    assert outcome.admitted == 8
    assert outcome.over_percent == 0


def test_a_sample_is_known_only_after_its_delay(bench: ModuleType) -> None:
    setting = bench.Setting(nodes=1, steps=8, period=3, delay=1)
    assert [setting.sample(now) for now in range(8)] == [-3, 0, 0, 0, 3, 3, 3, 6]


def test_equal_never_admits_more_than_live(bench: ModuleType, shared_use: ModuleType) -> None:
    jobs = shared_use.synthetic(1, devices=8, steps=360, load=2.0)
    _, live = run(bench, jobs, "live", steps=360)
    _, equal = run(bench, jobs, "equal", steps=360, allowed=live)
    assert all(a <= b for a, b in zip(equal, live, strict=True))


def test_without_a_recording_only_the_synthetic_part_runs(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["telemetry_value", "--seeds", "1", "--nodes", "1", "--hours", "1"])
    bench.main()
    shown = capsys.readouterr()
    assert "no recorded use" in shown.err
    assert "synthetic: " in shown.out
    assert "recorded: " not in shown.out
