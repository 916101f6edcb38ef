"""The jobs of benchmarks with shared GPUs are drawn by seed, and replay a recording."""

import gzip
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def shared_use(bench_on_path: None) -> Any:
    return importlib.import_module("sharing.shared_use")


def test_the_same_seed_draws_the_same_jobs(shared_use: ModuleType) -> None:
    first, second = (shared_use.synthetic(7, devices=8, steps=360, load=1.0) for _ in range(2))
    assert [(j.start, j.share) for j in first] == [(j.start, j.share) for j in second]
    assert all(np.array_equal(a.memory, b.memory) for a, b in zip(first, second, strict=True))
    assert [j.share for j in shared_use.synthetic(8, devices=8, steps=360, load=1.0)] != [j.share for j in first]


def test_a_recorded_value_applies_until_the_next(shared_use: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv.gz"
    with gzip.open(file, "wt") as out:
        out.write("pod,t_seconds,gpu_utilization_percent,gpu_memory_used_mib\n")
        out.write("a,0,10,1000\na,57,20,2000\nb,20,5,500\nb,120,6,600\n")
    found = shared_use.read_usage(file)
    assert found["a"][0].tolist() == [1000] * 6 + [2000] * 6
    assert found["a"][1].tolist() == [10] * 6 + [20] * 6
    assert found["b"][0].tolist() == [500] * 12
    jobs = shared_use.recorded(3, found, devices=8, load=50.0)
    assert jobs
    assert all(j.end <= 12 for j in jobs)


def test_shifted_jobs_replay_their_pod_from_another_time(shared_use: ModuleType) -> None:
    day = {"a": (np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32))}
    plain, shifted = (shared_use.recorded(3, day, devices=8, load=1.0, shift=shift) for shift in (False, True))
    assert [(job.start, job.end, job.share) for job in shifted] == [(job.start, job.end, job.share) for job in plain]
    assert all(job.memory[0] == job.start for job in plain)
    offsets = {int(job.memory[0] - job.start) for job in shifted}
    assert len(offsets) > len(shifted) / 2
    assert all(set(np.diff(job.memory)) <= {1, -999} for job in shifted)
