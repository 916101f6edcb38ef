"""The benchmark of live telemetry adds up the use of jobs and limits its arms as documented."""

import gzip
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement.model import Share

BENCH = Path(__file__).parents[2] / "bench" / "telemetry_value.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("telemetry_value", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def job(bench: Any, start: int, promised: Share, memory: float, compute: float) -> Any:
    return bench.Job(start, promised, np.full(100, memory, np.float32), np.full(100, compute, np.float32))


def run(bench: Any, jobs: list[Any], arm: str, steps: int = 100, allowed: Any = ()) -> Any:
    setting = bench.Setting(1, steps, 3, 1)
    return bench.run(jobs, bench.Arm(arm), Strategy.BEST, setting, allowed)


def test_use_beyond_the_promise_is_visible_only_in_samples(bench: Any) -> None:
    """Nine jobs promise a tenth each and use 60 % of a device: one device gets two in both arms."""
    greedy = [job(bench, 6 * i, Share(8_192, 10), 50_000, 60) for i in range(9)]
    blind, _ = run(bench, greedy, "promises")
    seeing, _ = run(bench, greedy, "live")
    assert blind.admitted == 9
    assert blind.over_percent > 0
    assert seeing.admitted == 9, "30 % of compute and 30 GB of memory are left on each"
    honest = [job(bench, 6 * i, Share(8_192, 10), 8_192, 10) for i in range(9)]
    assert run(bench, honest, "promises")[0].over_percent == 0


def test_live_refuses_jobs_if_samples_show_full_devices(bench: Any) -> None:
    full = [job(bench, 6 * i, Share(8_192, 10), 80_000, 100) for i in range(9)]
    assert run(bench, full, "promises")[0].admitted == 9
    outcome, _ = run(bench, full, "live")
    assert outcome.admitted == 8
    assert outcome.over_percent == 0


def test_picks_newer_than_the_sample_are_debited(bench: Any) -> None:
    """All jobs arrive together: no sample shows any use, so only the promises separate them."""
    burst = [job(bench, 0, Share(50_000, 50), 50_000, 50) for _ in range(9)]
    outcome, _ = run(bench, burst, "live")
    assert outcome.admitted == 8
    assert outcome.over_percent == 0


def test_a_sample_is_known_only_after_its_delay(bench: Any) -> None:
    setting = bench.Setting(nodes=1, steps=8, period=3, delay=1)
    assert [setting.sample(now) for now in range(8)] == [-3, 0, 0, 0, 3, 3, 3, 6]


def test_equal_never_admits_more_than_live(bench: Any) -> None:
    jobs = bench.synthetic(1, devices=8, steps=360, load=2.0)
    _, live = run(bench, jobs, "live", steps=360)
    _, equal = run(bench, jobs, "equal", steps=360, allowed=live)
    assert all(a <= b for a, b in zip(equal, live, strict=True))


def test_the_same_seed_draws_the_same_jobs(bench: Any) -> None:
    first, second = (bench.synthetic(7, devices=8, steps=360, load=1.0) for _ in range(2))
    assert [(j.start, j.share) for j in first] == [(j.start, j.share) for j in second]
    assert all(np.array_equal(a.memory, b.memory) for a, b in zip(first, second, strict=True))
    assert [j.share for j in bench.synthetic(8, devices=8, steps=360, load=1.0)] != [j.share for j in first]


def test_a_recorded_value_applies_until_the_next(bench: Any, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv.gz"
    with gzip.open(file, "wt") as out:
        out.write("pod,t_seconds,gpu_utilization_percent,gpu_memory_used_mib\n")
        out.write("a,0,10,1000\na,57,20,2000\nb,20,5,500\nb,120,6,600\n")
    found = bench.read_usage(file)
    assert found["a"][0].tolist() == [1000] * 6 + [2000] * 6
    assert found["a"][1].tolist() == [10] * 6 + [20] * 6
    assert found["b"][0].tolist() == [500] * 12
    jobs = bench.recorded(3, found, devices=8, load=50.0)
    assert jobs
    assert all(j.end <= 12 for j in jobs)


def test_without_a_recording_only_the_synthetic_part_runs(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["telemetry_value", "--seeds", "1", "--nodes", "1", "--hours", "1"])
    bench.main()
    shown = capsys.readouterr()
    assert "no recorded use" in shown.err
    assert "synthetic: " in shown.out
    assert "recorded: " not in shown.out
