"""When stale telemetry is not the fault of its nodes."""

from datetime import datetime, timedelta

import pytest

from gpufleet_operator.model.cluster.telemetry_outage import GRACE, TelemetryOutage, observe_outage
from gpufleet_testing.operator.make import NOW

STALE_AFTER = timedelta(seconds=90)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def observed(
    seconds: float, previous: TelemetryOutage | None = None, *, nodes: int = 2, read: float | None = None
) -> TelemetryOutage | None:
    """Returns the outage at this time, when the newest telemetry is from NOW."""
    read_at = None if read is None else after(read)
    return observe_outage(
        previous, newest=NOW, nodes=nodes, stale_after=STALE_AFTER, read_at=read_at, now=after(seconds)
    )


def test_outage_begins_before_the_newest_telemetry_is_stale() -> None:
    assert observed(60) is None
    assert observed(61) == TelemetryOutage(after(61), None)


def test_one_node_alone_is_stale_by_itself() -> None:
    assert observed(200, nodes=1) is None


def test_outage_is_excused_for_a_while() -> None:
    found = observed(61)
    assert found is not None
    assert found.suppresses_staleness(after(61) + GRACE - timedelta(seconds=1))
    assert not found.suppresses_staleness(after(61) + GRACE)
    assert observed(100, found) == found


def test_time_without_the_apiserver_does_not_count() -> None:
    found = observed(61, read=60)
    assert found is not None
    assert found.suppresses_staleness(after(600)), "nothing was read for ten minutes"
    back = observed(600, found, read=599)
    assert back == TelemetryOutage(after(600), after(599))
    assert observed(603, back, read=602) == TelemetryOutage(after(600), after(602))


@pytest.mark.parametrize(("silent_seconds", "outage"), [(45, False), (46, True)])
def test_silent_watch_is_an_outage_although_other_telemetry_arrives(silent_seconds: float, outage: bool) -> None:
    """Only the watch of the agents' Leases hangs, or only that of GPUTelemetry."""
    found = observe_outage(
        None,
        newest=after(100),
        heard_at=after(100 - silent_seconds),
        nodes=2,
        stale_after=STALE_AFTER,
        read_at=None,
        now=after(100),
    )
    assert (found is not None) is outage
