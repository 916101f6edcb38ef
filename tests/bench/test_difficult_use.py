"""The difficult uses are what they are called, and differ from synthetic use in memory only."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

GIB = 1024


@pytest.fixture(scope="module")
def bench(bench_on_path: None) -> Any:
    return importlib.import_module("sharing.difficult_use")


def drawn(bench: ModuleType, name: str, seed: int = 7) -> Any:
    draw, _ = bench.difficult(devices=16, steps=2880, load=1.0)[name]
    return draw(seed)


def used(job: Any) -> Any:
    return job.memory / job.share.memory_mib


def test_arrivals_and_compute_are_those_of_synthetic_use(bench: ModuleType) -> None:
    plain = bench.synthetic(7, devices=16, steps=2880, load=1.0)
    for name in ("late", "leak", "change", "templates"):
        jobs = drawn(bench, name)
        assert [(job.start, job.end, job.share) for job in jobs] == [(job.start, job.end, job.share) for job in plain]
        assert all(np.array_equal(job.compute, other.compute) for job, other in zip(jobs, plain, strict=True))


def test_late_jobs_keep_their_promise_after_an_hour(bench: ModuleType) -> None:
    jobs = drawn(bench, "late")
    late = [job for job in jobs if used(job)[0] < 0.5]
    assert 0.3 < len(late) / len(jobs) < 0.7
    assert all(used(job).max() <= 1 for job in jobs)
    long = next(job for job in late if len(job.memory) > 400)
    assert used(long)[[0, 359]] == pytest.approx(0.2)
    assert used(long)[360:] == pytest.approx(0.95)


def test_leaking_jobs_grow_by_a_tenth_of_an_hour(bench: ModuleType) -> None:
    jobs = [job for job in drawn(bench, "leak") if len(job.memory) > 200]
    growth = [used(job)[120] - used(job)[0] for job in jobs if job.memory[120] < 80 * GIB]
    leaking = [grown for grown in growth if grown > 0]
    assert leaking == pytest.approx([0.3] * len(leaking))
    assert 0.1 < len(leaking) / len(growth) < 0.3


def test_templates_swap_little_and_much_use_at_half_time(bench: ModuleType) -> None:
    jobs = drawn(bench, "change")
    halves = [[used(job)[0] for job in jobs if (job.start < 1440) is first] for first in (True, False)]
    for levels in halves:
        assert min(levels) < 0.7
        assert max(levels) > 1.1
    assert all(np.ptp(job.memory) == 0 for job in jobs)


def test_jobs_of_a_template_promise_the_same_and_use_about_the_same(bench: ModuleType) -> None:
    jobs = [job for job in drawn(bench, "templates") if job.memory[0] < 80 * GIB]
    by_template: dict[str, list[Any]] = {}
    for job in jobs:
        by_template.setdefault(job.template, []).append(job)
    assert 40 < len(by_template) <= 63
    for alike in by_template.values():
        levels = [used(job)[0] for job in alike]
        assert len({job.share.memory_mib for job in alike}) == 1
        assert max(levels) <= min(levels) * 1.1 / 0.9 + 1e-6


def test_under_promising_jobs_use_six_times_as_much(bench: ModuleType) -> None:
    jobs = drawn(bench, "under-promise")
    cheating = [job for job in jobs if used(job).max() > 1]
    assert 0.1 < len(cheating) / len(jobs) < 0.3
    assert {(job.share.memory_mib, float(job.memory[0])) for job in cheating} == {(4 * GIB, 24.0 * GIB)}
