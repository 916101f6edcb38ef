"""The benchmark of own use and moves counts and moves as the operator does, and charges what it documents."""

import importlib
import json
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement.model import Share

STEPS = 400
GIB = 1024


@pytest.fixture(scope="module")
def bench(bench_on_path: None) -> Any:
    return importlib.import_module("pressure")


def job(bench: ModuleType, start: int, promised_gib: int, *uses_gib: float, shorter: int = 0) -> Any:
    """A job that uses the first amount, and the second one from its 100th step on."""
    memory = np.full(STEPS - start - shorter, uses_gib[0] * GIB, np.float32)
    memory[100:] = uses_gib[-1] * GIB
    return bench.Job(start, Share(promised_gib * GIB, 1), memory, np.zeros_like(memory))


def run(bench: ModuleType, jobs: list[Any], arm: str) -> Any:
    return bench.run(jobs, bench.Arm(arm), Strategy.BEST, bench.Setting(1, STEPS, 3, 1))


def test_unused_promises_are_given_to_others_after_ten_minutes(bench: ModuleType) -> None:
    idle = [job(bench, 0, 60, 10) for _ in range(8)]
    early, late = job(bench, 30, 60, 10), job(bench, 100, 60, 10)

    assert run(bench, [*idle, early], "own").admitted == 8
    assert run(bench, [*idle, late], "own").admitted == 9
    assert run(bench, [*idle, late], "promises").admitted == 8


def test_jobs_are_placed_by_what_earlier_ones_of_their_template_used(bench: ModuleType) -> None:
    """Eight jobs keep a promise of 60 GiB each and use 10: beside one of them 20 GiB are free, for a ninth not 60."""
    known = [replace(job(bench, 0, 60, 10), template="t") for _ in range(8)]
    ninth, other = replace(job(bench, 100, 60, 10), template="t"), replace(job(bench, 100, 60, 10), template="u")
    early = replace(job(bench, 30, 60, 10), template="t")

    assert run(bench, [*known, ninth], "learned").admitted == 9
    assert run(bench, [*known, other], "learned").admitted == 8
    assert run(bench, [*known, early], "learned").admitted == 8
    assert run(bench, [*known, ninth], "promises").admitted == 8


def test_device_on_which_a_job_grows_is_relieved(bench: ModuleType) -> None:
    """Six devices have two jobs, two have one. Only the neighbor of the growing job has room elsewhere."""
    pairs = [job(bench, 0, 40, 35, shorter=n) for n in range(14)]
    growing = [job(bench, 0, 40, 39), job(bench, 0, 40, 39, 60)]

    blind = run(bench, [*pairs, *growing], "promises")
    assert blind.moves == 0
    assert blind.out_of_memory_percent > 0
    room = run(bench, [*pairs[:-2], *growing], "own+move")
    assert room.moves == 1
    assert room.moves_within_promise == 1
    assert room.out_of_memory_percent < blind.out_of_memory_percent


def test_job_that_may_not_be_moved_stays(bench: ModuleType) -> None:
    pairs = [job(bench, 0, 40, 35, shorter=n) for n in range(12)]
    growing = [job(bench, 0, 40, 39), job(bench, 0, 40, 39, 60)]
    assert run(bench, [*pairs, *growing], "own+move").moves == 1
    kept = [replace(one, movable=False) for one in (*pairs, *growing)]
    assert run(bench, kept, "own+move").moves == 0


def test_clairvoyant_admits_only_what_fits_until_its_end(bench: ModuleType) -> None:
    """One device has room now for the job that arrives last, and none later."""
    growing = [job(bench, 0, 40, 35, 60) for _ in range(8)]
    fits, never_fits = job(bench, 0, 20, 15), job(bench, 0, 20, 25)
    assert run(bench, [*growing, fits], "clairvoyant").admitted == 9
    refused = run(bench, [*growing, never_fits], "clairvoyant")
    assert refused.admitted == 8
    assert refused.out_of_memory_percent == 0
    assert run(bench, [*growing, never_fits], "promises").out_of_memory_percent > 0


def test_net_hours_charge_moves_and_time_out_of_memory(bench: ModuleType) -> None:
    steady = run(bench, [job(bench, 0, 40, 10)], "own+move")
    assert steady.net_hours(30) == steady.hours == STEPS / 360

    full = [job(bench, 0, 10, 85)]
    stopped = run(bench, full, "promises")
    assert stopped.net_hours(30) == pytest.approx(stopped.hours - STEPS / 360 - 0.5)
    assert stopped.net_hours(2) == pytest.approx(stopped.hours - STEPS / 360 - 1 / 30)
    moved = replace(steady, moves=3)
    assert moved.net_hours(10) == pytest.approx(steady.hours - 0.5)


def test_fleet_limit_is_what_all_devices_lack_together(bench: ModuleType) -> None:
    """Nine jobs of 80 GiB on eight devices: one ninth of their memory does not exist."""
    nine = run(bench, [job(bench, 0, 8, 80) for _ in range(9)], "promises")
    assert nine.fleet_peak_percent == pytest.approx(112.5)
    assert nine.fleet_excess_percent == pytest.approx(100 / 9)
    eight = run(bench, [job(bench, 0, 80, 80) for _ in range(8)], "promises")
    assert (eight.fleet_peak_percent, eight.fleet_excess_percent) == (100, 0)


def test_command_prints_a_table_per_use_and_load(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = "--nodes 1 --hours 1 --uses late leak --load 0.7 1.1 --seeds 3 --strategy Best --arms promises own+move"
    monkeypatch.setattr(sys, "argv", ["pressure.py", *arguments.split()])
    bench.main()
    shown = capsys.readouterr()
    titles = [line for line in shown.out.splitlines() if "movable" in line]
    assert titles == [f"{use}, load {load}, 100 % movable, 1 seeds" for use in ("late", "leak") for load in (0.7, 1.1)]
    assert shown.out.count("| Best | promises |") == 4
    assert "net hours at 30 min" in shown.out
    rows = [json.loads(line) for line in shown.err.splitlines() if line.startswith("{")]
    assert len(rows) == 8


def test_unknown_use_is_an_error(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pressure.py", "--uses", "sunday"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "--uses: 'sunday': must be one of synthetic" in capsys.readouterr().err
