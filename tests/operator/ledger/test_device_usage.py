"""How the reservations and holders of one device add up."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from gpufleet_api.names import SHARED_RESOURCE
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.fleet.engine_input import UNKNOWN_NODE, node_state
from gpufleet_operator.ledger.device_usage import DeviceUsage, device_memory_mib, usage_of
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator import make

SLOT = PodNeeds(extended={SHARED_RESOURCE: 1})


def usage(reserved: Sequence[Assignment], held: Sequence[Assignment | Pod], *, age: float = 1) -> DeviceUsage:
    """The use of a device that was sampled `age` seconds ago."""
    device = make.telemetry_status(make.telemetry(held={"GPU-1-0": held})).devices[0]
    return usage_of(device, reserved, make.NOW - timedelta(seconds=age))


def test_memory_to_promise_is_without_what_the_driver_reserves() -> None:
    t4 = make.telemetry("node-1", devices=1, memoryTotalMiB=15360, memoryReservedMiB=388)
    old = make.telemetry("node-2", devices=1, memoryTotalMiB=15360)
    reports = {telemetry.name: make.telemetry_status(telemetry) for telemetry in (t4, old)}
    assert device_memory_mib(reports) == {("node-1", "GPU-1-0"): 14972, ("node-2", "GPU-2-0"): 15360}


def test_unused_device() -> None:
    assert usage([], []) == DeviceUsage()


def test_whole_device_is_held() -> None:
    whole = make.assignment(make.pod())
    unmanaged = make.pod("other")

    assert usage([whole], []) == usage([whole], [whole]) == usage([], [unmanaged]) == DeviceUsage(held=True)


def test_reservation_and_its_holder_count_once() -> None:
    one, two = make.shared_assignment("a", 1000, 10), make.shared_assignment("b", 500)

    expected = DeviceUsage(sharers=2, promised_memory_mib=1500, promised_compute_percent=10)
    assert usage([one, two], []) == usage([one, two], [one]) == usage([one, two], [one, two]) == expected


def test_reservation_younger_than_the_sample_is_in_flight() -> None:
    old, new = make.shared_assignment("a", 1000, 10), make.shared_assignment("b", 500, 5, seconds_ago=3)

    found = usage([old, new], [old], age=10)

    assert (found.promised_memory_mib, found.in_flight_memory_mib) == (1000, 500)
    assert (found.promised_compute_percent, found.in_flight_compute_percent) == (10, 5)


def test_holder_without_reservation_keeps_its_promise() -> None:
    """The node's object was deleted and created, or the pod is unmanaged: it shares the device without a promise."""
    earlier, unmanaged = make.shared_assignment("a", 1000), make.pod("x", needs=SLOT)
    both = usage([make.shared_assignment("b", 10)], [earlier, unmanaged])

    assert usage([], [earlier]) == DeviceUsage(sharers=1, promised_memory_mib=1000)
    assert usage([], [unmanaged]) == DeviceUsage(sharers=1)
    assert both == DeviceUsage(sharers=3, promised_memory_mib=1010)


def test_holder_of_the_whole_device_takes_precedence_over_sharers() -> None:
    assert usage([make.shared_assignment("a")], [make.pod("x")]) == DeviceUsage(held=True)


@pytest.mark.parametrize(("slots", "free"), [(3, 1), (2, 0), (1, 0)])
def test_free_slots_are_those_without_a_sharer(slots: int, free: int) -> None:
    held = {"GPU-1-0": [make.pod("x", needs=SLOT)]}
    telemetry = make.telemetry(assignments=[make.shared_assignment("a")], held=held).model

    state = node_state(telemetry, UNKNOWN_NODE, age_seconds=2, stale_after_seconds=90, slots=slots)

    assert state.devices[0].free_slots == free


def test_wrong_clock_of_a_node_puts_nothing_in_flight() -> None:
    """With a clock that is an hour slow, every reservation would always seem younger than every sample."""
    moment = timestamps.micros(make.NOW - timedelta(hours=1))
    telemetry = make.telemetry(assignments=[make.shared_assignment("a")], sampleTime=moment)
    wrong = {"observed_at": moment, "sample_time": moment}
    status = make.telemetry_status(telemetry).model_copy(update=wrong)
    model = telemetry.model.model_copy(update={"status": status})

    state = node_state(model, UNKNOWN_NODE, age_seconds=2, stale_after_seconds=90, now=make.NOW)

    assert (state.devices[0].promised_memory_mib, state.devices[0].in_flight_memory_mib) == (1000, 0)
