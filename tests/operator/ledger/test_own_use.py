"""What each holder of a shared device counts with, and what others may get of its promise."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.ledger.device_usage import usage_of
from gpufleet_operator.ledger.own_use import RECLAIM_AFTER, ObservationTime
from gpufleet_testing.operator import make
from gpufleet_testing.operator.make import HolderMemory, reclaimable, using

NEVER = make.shared_assignment("a", 1000)
USED = reclaimable(make.shared_assignment("b", 1000))
LONG = RECLAIM_AFTER.total_seconds()


def reclaimed(reserved: Sequence[Assignment], memory: Mapping[str, HolderMemory], *, age: float = 1) -> int:
    """How much of the promises is reclaimed on a device that all of these pods hold."""
    telemetry = using(make.telemetry(held={"GPU-1-0": reserved}), memory)
    status = make.telemetry_status(telemetry)
    observation = ObservationTime(timestamps.parse(status.observed_at), RECLAIM_AFTER)
    sampled_at = make.NOW - timedelta(seconds=age)
    return usage_of(status.devices[0], reserved, sampled_at, observation).reclaimed_memory_mib


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        pytest.param(HolderMemory(300, 400, LONG), 600, id="observed for ten minutes: the maximum counts"),
        pytest.param(HolderMemory(400, 300, LONG), 600, id="the maximum is of an earlier check"),
        pytest.param(HolderMemory(300, 400, LONG - 1), 0, id="not observed for long enough: the promise counts"),
        pytest.param(HolderMemory(1500, 1600, 5), -600, id="more than promised counts immediately"),
        pytest.param(HolderMemory(1500, 1600, LONG), -600, id="more than promised"),
        pytest.param(HolderMemory(0, 0, LONG), 1000, id="nothing is used"),
    ],
)
def test_holder_counts_with_its_own_use_once_observed(memory: HolderMemory, expected: int) -> None:
    assert reclaimed([USED], {USED.pod: memory}) == expected


def test_each_device_of_a_holder_is_counted_by_itself() -> None:
    """A member of a gang with two devices: what it does not use of one of them is free there, and only there."""
    member = reclaimable(make.shared_assignment("b", 1000)).model_copy(
        update={"devices": ["GPU-1-0", "GPU-1-1"], "replica": 1, "replicas": 2}
    )
    telemetry = make.telemetry(devices=2, held={"GPU-1-0": [member], "GPU-1-1": [member]})
    status = make.telemetry_status(telemetry)
    observation = ObservationTime(timestamps.parse(status.observed_at), RECLAIM_AFTER)
    since = timestamps.micros(make.NOW - RECLAIM_AFTER - timedelta(seconds=5))
    uses = {"GPU-1-0": 300, "GPU-1-1": 900}
    found = {}
    for device in status.devices:
        (holder,) = device.allocated_to
        used = {"memory_used_mib": uses[device.uuid], "observed_since": since}
        seen = device.model_copy(update={"allocated_to": [holder.model_copy(update=used)]})
        found[device.uuid] = usage_of(seen, [member], make.NOW, observation).reclaimed_memory_mib
    assert found == {"GPU-1-0": 700, "GPU-1-1": 100}


def test_holder_of_unknown_use_counts_with_its_promise() -> None:
    assert reclaimed([USED], {}) == 0


def test_promise_of_a_holder_that_keeps_it_is_not_reclaimed() -> None:
    idle = HolderMemory(0)

    assert reclaimed([NEVER], {NEVER.pod: idle}) == 0
    assert reclaimed([NEVER, USED], {NEVER.pod: idle, USED.pod: idle}) == 1000


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        pytest.param(HolderMemory(300), 0, id="less: its demand counts"),
        pytest.param(HolderMemory(700, 900), -500, id="more than its demand, within its promise: its use counts"),
        pytest.param(HolderMemory(300, 400, LONG), 0, id="less for a long time: it did not share its promise"),
    ],
)
def test_holder_by_learned_demand_counts_with_it_or_with_its_use(used: HolderMemory, expected: int) -> None:
    learned = NEVER.model_copy(update={"demand_mib": 400})
    telemetry = using(make.telemetry(held={"GPU-1-0": [learned]}), {learned.pod: used})
    device = make.telemetry_status(telemetry).devices[0]
    usage = usage_of(device, [learned], make.NOW, ObservationTime(make.NOW, RECLAIM_AFTER))
    assert (usage.promised_memory_mib, usage.reclaimed_memory_mib) == (400, expected)


def test_overuse_counts_only_beside_a_holder_that_shares_its_promise() -> None:
    over = HolderMemory(1700)

    assert reclaimed([NEVER], {NEVER.pod: over}) == 0, "without such a holder the device counts as before"
    assert reclaimed([NEVER, USED], {NEVER.pod: over}) == -700


def test_reservation_that_the_sample_cannot_show_is_not_reclaimed() -> None:
    young = reclaimable(make.shared_assignment("b", 1000, seconds_ago=3))

    assert reclaimed([young], {young.pod: HolderMemory(0)}, age=10) == 0
