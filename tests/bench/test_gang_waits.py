"""The benchmark of gangs that wait places as the operator does, and measures what it says."""

import importlib
from types import ModuleType
from typing import Any

import pytest

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, PodNeeds, Request

HOURS = 4.0
SINGLE = Request("single", (0,), DeviceNeeds(1), PodNeeds(), Strategy.PACK)
PAIR = Request("pair", (0, 1), DeviceNeeds(2), PodNeeds(), Strategy.PACK, gang=True)


@pytest.fixture(scope="module")
def bench(bench_on_path: None) -> Any:
    return importlib.import_module("gang_waits")


def node(name: str) -> NodeState:
    devices = tuple(
        DeviceState(f"{name}/{index}", index, "any", 1000, 0, 0, None, sample_age_seconds=0.0) for index in range(2)
    )
    return NodeState(name, devices, free_cpu_milli=10**6, free_memory_bytes=2**40, free_pods=1000)


def measured(bench: ModuleType, *, earmarks: bool, fair: bool = False) -> Any:
    """Four devices; single pods of half an hour, of which five at a time want one; after two hours, a gang of all."""
    singles = [bench.Job(f"s{n:03}", "heavy", SINGLE, n * 0.1, 0.5) for n in range(int(HOURS * 10))]
    other = bench.Job("t", "a", SINGLE, 2.31, 0.5)
    gang = bench.Job("z", "b", PAIR, 2.05, 0.5)
    arrivals = sorted([*singles, other, gang], key=lambda job: job.arrival)
    return bench.measure([node("one"), node("two")], arrivals, HOURS, earmarks=earmarks, fair=fair)


def test_gang_waits_for_ever_without_earmarks(bench: ModuleType) -> None:
    found = measured(bench, earmarks=False)

    assert (found.gangs, found.gangs_waiting) == (1, 1)
    assert found.gang_max == pytest.approx(60 * (HOURS - 2.05), abs=0.1)


def test_gang_starts_when_the_pods_of_its_earmark_have_ended(bench: ModuleType) -> None:
    found = measured(bench, earmarks=True)

    assert found.gangs_waiting == 0
    assert 2 <= found.gang_max <= 2 + 30 + 1, "two minutes until the earmark, then at most a pod's half hour"
    assert found.allocated_percent < measured(bench, earmarks=False).allocated_percent


def test_fairness_puts_the_namespace_with_fewer_devices_first(bench: ModuleType) -> None:
    unfair, fair = measured(bench, earmarks=False), measured(bench, earmarks=False, fair=True)

    assert fair.others_p95 < unfair.others_p95
