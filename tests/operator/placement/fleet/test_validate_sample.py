"""Invalid metrics never reach a score: a typed error names node, device and field, and the fleet is as before."""

import math
import re
from typing import Any

import pytest

from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import InvalidSampleError, PlacementError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("utilization_percent", math.nan),
        ("utilization_percent", 101),
        ("utilization_percent", -1),
        ("memory_used_mib", math.nan),
        ("memory_used_mib", math.inf),
        ("memory_used_mib", -1),
        ("memory_total_mib", -math.inf),
        ("temperature_celsius", -274),
        ("temperature_celsius", math.nan),
        ("temperature_celsius", 1_001),
        ("power_milliwatts", -1),
        ("power_limit_milliwatts", math.inf),
        ("process_count", -1),
        ("compute_capability", "nine"),
        ("free_slots", -1),
        ("promised_memory_mib", -1),
        ("promised_compute_percent", -5),
        ("in_flight_memory_mib", math.nan),
        ("sample_age_seconds", -1.0),
        ("sample_age_seconds", math.nan),
        ("memory_used_mib", "many"),
        ("utilization_percent", [3]),
        ("compute_capability", 9.0),
    ],
)
def test_invalid_metrics_are_refused_by_field(make: Any, field: str, value: float | str | list[int]) -> None:
    fleet = Fleet.of([make.node("a", 1)])
    before, version = dict(fleet.nodes), fleet.version
    with pytest.raises(InvalidSampleError, match=rf"b/GPU-bad: {field} is {re.escape(str(value))}"):
        fleet.put(make.node("b", [make.device("GPU-bad", 0, **{field: value})]))
    assert (dict(fleet.nodes), fleet.version) == (before, version)


def test_more_memory_used_than_there_is_names_both(make: Any) -> None:
    bad = make.device("GPU-bad", 0, memory_total_mib=80_000, memory_used_mib=80_001)
    with pytest.raises(InvalidSampleError, match="memory_used_mib is 80001, above memory_total_mib 80000"):
        Fleet.of([make.node("a", [bad])])


def test_a_bad_update_leaves_the_last_good_state_of_the_node(make: Any) -> None:
    fleet = Fleet.of([make.node("a", 2)])
    with pytest.raises(PlacementError):
        fleet.put(make.node("a", [make.device("GPU-a-0", 0, utilization_percent=200)]))
    assert [d.uuid for d in fleet.nodes["a"].devices] == ["GPU-a-0", "GPU-a-1"]


@pytest.mark.parametrize("field", ["memory_used_mib", "utilization_percent", "temperature_celsius", "power_milliwatts"])
def test_a_value_that_hardware_does_not_report_is_no_error(make: Any, field: str) -> None:
    fleet = Fleet.of([make.node("a", [make.device("GPU-a", 0, **{field: None})])])
    assert getattr(fleet.nodes["a"].devices[0], field) is None


def test_extremes_that_can_be_true_are_taken(make: Any) -> None:
    cold = make.device("GPU-a", 0, temperature_celsius=-273, memory_used_mib=80_000, utilization_percent=100)
    assert Fleet.of([make.node("a", [cold])]).nodes["a"].devices == (cold,)
