"""The use of devices by a namespace: what pods have, and what they had within the last hour."""

from datetime import timedelta

import pytest

from gpufleet_operator.decide.queue.namespace_use import dominant_share, update_use, use_by_namespace
from gpufleet_operator.ledger.ledger import read_ledger
from gpufleet_operator.model.state_types import DeviceUse, PassState
from gpufleet_testing.operator import make

HOUR = timedelta(hours=1)


def test_reservation_counts_until_an_hour_after_its_end() -> None:
    pod = make.running_pod()
    held = make.snapshot(make.workload(), pod, make.telemetry(assignments=[make.assignment(pod)]))
    free = make.snapshot(make.workload(), make.telemetry())

    first = update_use(held, {}, read_ledger(held, PassState()))
    ended = update_use(free, first, read_ledger(free, PassState()))

    assert [(one.namespace, one.devices, one.until) for one in first.values()] == [("ml", 1.0, None)]
    assert [one.until for one in ended.values()] == [make.NOW]
    later = make.snapshot(make.telemetry(), now=make.NOW + HOUR)
    assert update_use(later, ended, read_ledger(later, PassState())) == {}


@pytest.mark.parametrize(
    ("since_hours", "until_hours", "expected"),
    [(-3, None, 2.0), (0, None, 2.0), (-1, -0.5, 1.0), (-3, -0.75, 0.5), (-0.5, -0.25, 0.5)],
    ids=["held for long", "just picked", "half of the hour", "only what is within the hour", "started within it"],
)
def test_released_devices_count_for_their_part_of_the_hour(
    since_hours: float, until_hours: float | None, expected: float
) -> None:
    until = None if until_hours is None else make.NOW + until_hours * HOUR
    use = DeviceUse("ml", 2.0, make.NOW + since_hours * HOUR, until)

    assert use_by_namespace([use], make.NOW) == {"ml": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("memory", "compute", "expected"),
    [(None, None, 2.0), (20_000, None, 0.5), (20_000, 50, 1.0), (None, 10, 0.2)],
)
def test_share_counts_for_its_larger_part(memory: int | None, compute: int | None, expected: float) -> None:
    assignment = make.assignment(make.pod(), "GPU-1-0", "GPU-1-1", memory_mib=memory, compute_percent=compute)

    assert dominant_share(assignment, 80_000) == pytest.approx(expected)
