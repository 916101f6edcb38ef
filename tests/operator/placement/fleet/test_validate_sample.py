"""Invalid metrics never reach a score: a typed error names node, device and field, and the fleet is as before."""

import math
import re
from typing import Any

import pytest

from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.errors import InvalidSampleError, PlacementError
from gpufleet_operator.placement.model import DeviceState
from gpufleet_testing.placement.builders import make_device, make_node


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
def test_invalid_measurement_is_rejected_by_field(field: str, value: float | str | list[int]) -> None:
    invalid: dict[str, Any] = {field: value}  # of a type that a driver should never send
    fleet = Fleet.of([make_node("a", 1)])
    before, version = dict(fleet.nodes), fleet.version
    with pytest.raises(InvalidSampleError, match=rf"b/GPU-bad: {field} is {re.escape(str(value))}"):
        fleet.put(make_node("b", [make_device("GPU-bad", 0, **invalid)]))
    assert (dict(fleet.nodes), fleet.version) == (before, version)


def test_more_memory_used_than_there_is_names_both() -> None:
    bad = make_device("GPU-bad", 0, memory_total_mib=80_000, memory_used_mib=80_001)
    with pytest.raises(InvalidSampleError, match="memory_used_mib is 80001, above memory_total_mib 80000"):
        Fleet.of([make_node("a", [bad])])


def test_a_bad_update_leaves_the_last_good_state_of_the_node() -> None:
    fleet = Fleet.of([make_node("a", 2)])
    with pytest.raises(PlacementError):
        fleet.put(make_node("a", [make_device("GPU-a-0", 0, utilization_percent=200)]))
    assert [d.uuid for d in fleet.nodes["a"].devices] == ["GPU-a-0", "GPU-a-1"]


@pytest.mark.parametrize(
    "device",
    [
        make_device(memory_used_mib=None),
        make_device(utilization_percent=None),
        make_device(temperature_celsius=None),
        make_device(power_milliwatts=None),
    ],
)
def test_unreported_measurement_is_accepted(device: DeviceState) -> None:
    assert Fleet.of([make_node("a", [device])]).nodes["a"].devices == (device,)


def test_extremes_that_can_be_true_are_taken() -> None:
    cold = make_device("GPU-a", 0, temperature_celsius=-273, memory_used_mib=80_000, utilization_percent=100)
    assert Fleet.of([make_node("a", [cold])]).nodes["a"].devices == (cold,)
