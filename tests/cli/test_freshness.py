"""A report is as old as its write or a later renewal of a Lease that names it, by the apiserver's clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpufleet_cli.freshness import Renewals, written_at
from gpufleet_testing.cli.clusters import agent_lease, condition, live_telemetry

OBSERVED = "2026-01-01T00:00:00Z"
RENEWED = "2026-01-01T00:04:30Z"
NOW = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)


def age(telemetry: dict[str, Any], *leases: dict[str, Any], readable: bool = True) -> float:
    written = written_at(telemetry)
    assert written is not None
    return Renewals.of(leases, readable=readable).age_seconds(telemetry, written, NOW)


def report(*conditions: dict[str, str]) -> dict[str, Any]:
    return live_telemetry("node-1", observed=OBSERVED, conditions=list(conditions))


def lease(**meta: object) -> dict[str, Any]:
    found = agent_lease("node-1", OBSERVED, RENEWED)
    return {**found, "metadata": {**found["metadata"], **meta}}


def test_renewal_of_the_report_counts_by_the_apiservers_clock() -> None:
    assert age(report()) == 300
    assert age(report(), lease()) == 30


def test_last_of_several_renewals_counts() -> None:
    earlier = agent_lease("node-1", OBSERVED, "2026-01-01T00:02:00Z", namespace="before")
    assert age(report(), lease(), earlier) == age(report(), earlier, lease()) == 30


def test_renewal_before_the_write_makes_a_report_no_older() -> None:
    assert age(report(), agent_lease("node-1", OBSERVED, "2025-12-31T23:00:00Z")) == 300


@pytest.mark.parametrize(
    "other",
    [
        agent_lease("node-1", "2025-12-31T23:59:30Z", RENEWED),
        agent_lease("node-1", "", RENEWED),
        agent_lease("node-10", OBSERVED, RENEWED),
        lease(name="node-1"),
        lease(labels={}),
        lease(annotations=None),
        lease(managedFields=[{"manager": "kubectl", "operation": "Apply", "time": RENEWED}]),
        lease(managedFields=[{"manager": "gpufleet-agent", "operation": "Apply", "time": "noon"}]),
        {"metadata": None},
    ],
    ids=[
        "another report", "no report", "another node", "another name", "no label", "no annotations", "another writer",
        "malformed time", "no metadata",
    ],
)  # fmt: skip
def test_lease_that_does_not_confirm_the_report_counts_nothing(other: dict[str, Any]) -> None:
    assert age(report(), other) == 300


def test_unreadable_leases_leave_it_to_the_operators_condition() -> None:
    assert age(report(condition("Fresh", "True", "Fresh")), readable=False) == 0
    assert age(report(condition("Fresh", "True", "Fresh"))) == 300
    assert age(report(condition("Fresh", "False", "Stale")), readable=False) == 300
    assert age(report(condition("Healthy", "True", "Healthy")), readable=False) == 300


def test_report_in_the_future_has_no_age() -> None:
    ahead = f"{NOW + timedelta(seconds=5):%Y-%m-%dT%H:%M:%SZ}"
    assert age(report(), agent_lease("node-1", OBSERVED, ahead)) == 0
