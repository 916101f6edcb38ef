"""Freshness is judged by the apiserver's time of the agent's own writes."""

from typing import Any

import pytest

from gpufleet_operator.cache.telemetry.decode_lease import agent_lease
from gpufleet_testing.operator import decisions, make

OBSERVED = "2026-05-01T10:00:00.000000Z"


def lease(**metadata: Any) -> dict[str, Any]:
    body = decisions.agent_lease("node-1", OBSERVED, make.NOW)
    return {**body, "metadata": {**body["metadata"], **metadata}}


def test_lease_of_an_agent() -> None:
    found = agent_lease(lease())
    assert (found.name, found.observed_at, found.renewed_at) == ("node-1", OBSERVED, make.NOW.replace(microsecond=0))


@pytest.mark.parametrize(
    "managed",
    [
        [],
        [{"manager": "kubectl-edit", "time": "2026-05-01T10:00:00Z"}],
        [{"manager": "gpufleet-agent", "subresource": "status", "time": "2026-05-01T10:00:00Z"}],
    ],
)
def test_writes_of_others_are_no_renewal(managed: list[dict[str, Any]]) -> None:
    assert agent_lease(lease(managedFields=managed)).renewed_at is None


def test_node_clock_does_not_matter() -> None:
    body = lease()
    body["spec"]["renewTime"] = "2099-01-01T00:00:00.000000Z"
    assert agent_lease(body).renewed_at == make.NOW.replace(microsecond=0)


@pytest.mark.parametrize("metadata", [{"name": "gpufleet-operator"}, {"annotations": None}, {"annotations": []}])
def test_other_lease_confirms_nothing(metadata: dict[str, Any]) -> None:
    found = agent_lease(lease(**metadata))
    assert found.name == "" or found.observed_at == ""
