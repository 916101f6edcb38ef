"""Kubelets that miss renewals, by the operator's own observation."""

from datetime import datetime, timedelta

import pytest

from gpufleet_operator.model.node_leases import NodeLease, NodeLeases, observe
from gpufleet_testing.operator import make


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def polled(renewals: dict[float, str], until: float, *, poll: float = 3, lease: float = 40) -> NodeLeases:
    """Polls one node's lease from second 0 on; `renewals` has the renewTime from a second on."""
    found = NodeLeases(poll_interval=seconds(poll))
    moment = 0.0
    while moment <= until:
        current = [text for since, text in renewals.items() if since <= moment]
        found = observe(found, {"node-1": NodeLease(current[-1], seconds(lease))}, make.NOW + seconds(moment))
        moment += poll
    return found


@pytest.mark.parametrize(("until", "late", "expired"), [(15, False, False), (18, True, False), (42, True, True)])
def test_lease_without_renewals_is_late_and_then_expired(until: float, late: bool, expired: bool) -> None:
    found = polled({0: "a"}, until)

    assert found.late_since("node-1") == (make.NOW if late else None)
    assert found.expired_since("node-1") == (make.NOW if expired else None)


@pytest.mark.parametrize("poll", [1, 3, 5, 10, 20])
@pytest.mark.parametrize("lease", [40, 120])
def test_healthy_kubelet_is_never_late(poll: float, lease: float) -> None:
    """It renews every quarter of the lease duration, plus jitter."""
    every = lease / 4 * 1.04
    renewals = {number * every: f"renewal {number}" for number in range(60)}

    assert not any(polled(renewals, until, poll=poll, lease=lease).late_nodes() for until in range(0, 500, 7))


def test_wrong_clock_of_a_node_does_not_matter() -> None:
    renewals = {float(number): f"1970-01-01T00:00:{number:02}Z" for number in range(0, 60, 10)}

    assert not polled(renewals, 57).late_nodes()


def test_time_without_lists_does_not_count() -> None:
    """While the apiserver is unavailable, kubelets cannot renew either."""
    leases = {"node-1": NodeLease("a", seconds(40))}
    before = observe(NodeLeases(), leases, make.NOW)

    after = observe(before, leases, make.NOW + seconds(300))

    assert not after.late_nodes()
    assert observe(after, leases, make.NOW + seconds(303)).renewed_at["node-1"] == make.NOW + seconds(300)


@pytest.mark.parametrize("gap", [6.5, 7, 10, 20])
def test_lease_without_renewals_expires_although_lists_are_slow(gap: float) -> None:
    """Lists that take seconds, or one in two of which fails."""
    leases, found, moment = {"node-1": NodeLease("a", seconds(40))}, NodeLeases(), 0.0
    late = None
    while found.expired_since("node-1") is None:
        found = observe(found, leases, make.NOW + seconds(moment))
        late = moment if late is None and found.late_since("node-1") else late
        moment += gap
        assert moment < 200

    assert late is not None


def test_new_node_counts_as_renewed_and_a_deleted_one_is_forgotten() -> None:
    first = observe(NodeLeases(), {"node-1": NodeLease("a", seconds(40))}, make.NOW)

    second = observe(first, {"node-2": NodeLease("b", seconds(40))}, make.NOW + seconds(3))

    assert second.renewed_at == {"node-2": make.NOW + seconds(3)}
    assert second.late_since("node-1") is None


def test_node_without_a_lease_is_not_judged() -> None:
    assert NodeLeases(read_at=datetime.max.replace(tzinfo=make.NOW.tzinfo)).expired_since("node-1") is None
