"""Commands on a cluster count the Leases with which agents at rest confirm their reports."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpufleet_cli.cluster.kinds import AGENT_LEASES
from gpufleet_testing.cli.clusters import RecordedCluster, agent_lease, condition, live_telemetry
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

FORBIDDEN = 'Error from server (Forbidden): leases is forbidden: User "dev" cannot list resource "leases"'
SELECTOR = "?labelSelector=gpufleet.dev%2Flease%3Dagent --request-timeout=30s"
OWN = f"get --raw /apis/coordination.k8s.io/v1/namespaces/gpufleet-system/leases{SELECTOR}"
ALL = f"get --raw /apis/coordination.k8s.io/v1/leases{SELECTOR}"


def ago(seconds: float) -> str:
    return f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


RESTING = ago(280)
"""Time of a report that is not repeated, because nothing changed."""


def node(observed: str = RESTING, *conditions: dict[str, str]) -> dict[str, Any]:
    return live_telemetry("node-1", gpu("node-1", 0), observed=observed, conditions=list(conditions))


def state(*arguments: object) -> str:
    (one,) = run_cli("top", "-o", "json", *arguments).json
    return str(one["state"])


def reads_of_leases(cluster: RecordedCluster) -> list[str]:
    return [call for call in cluster.calls if "/leases" in call]


def test_report_that_a_lease_confirms_is_current(cluster: RecordedCluster) -> None:
    cluster.fleet([node()], leases=[agent_lease("node-1", RESTING, ago(20))])
    assert (state(), run_cli("top").notes) == ("Free", [])
    assert reads_of_leases(cluster) == [OWN] * 2


@pytest.mark.parametrize(
    "leases",
    [[], [agent_lease("node-1", RESTING, ago(200))], [agent_lease("node-1", ago(310), ago(20))]],
    ids=["no lease", "not renewed", "of another report"],
)
def test_old_report_that_no_lease_confirms_is_stale(cluster: RecordedCluster, leases: list[dict[str, Any]]) -> None:
    cluster.fleet([node()], leases=leases)
    assert state() == "Stale"
    (note,) = run_cli("top").notes
    assert note.startswith("node-1: Stale: the telemetry is 2")


def test_leases_are_read_only_if_a_report_may_be_stale(cluster: RecordedCluster) -> None:
    cluster.fleet([node(ago(30)), live_telemetry("node-2", observed=ago(50))])
    assert (state(), reads_of_leases(cluster)) == ("Free", [])
    cluster.fleet([node(ago(30)), live_telemetry("node-2", observed=ago(70))])
    assert (state(), reads_of_leases(cluster)) == ("Free", [OWN, ALL])


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([condition("Fresh", "True", "Fresh")], "Free"),
        ([condition("Fresh", "False", "Stale", "no report")], "Stale"),
        ([], "Stale"),
    ],
    ids=["fresh", "stale", "unknown"],
)
def test_user_who_may_not_list_leases_gets_the_operators_condition(
    cluster: RecordedCluster, conditions: list[dict[str, str]], expected: str
) -> None:
    cluster.fleet([node(RESTING, *conditions)])
    for namespace in (None, "gpufleet-system"):
        cluster.fail(AGENT_LEASES.path(namespace), FORBIDDEN)
    assert state() == expected
    note = run_cli("top").notes[0]
    assert note.startswith('leases not read: leases is forbidden: User "dev" cannot list resource "leases"')
    assert note.endswith("; telemetry is as fresh as the operator's condition Fresh says")
    assert len(run_cli("status").notes) == 2


def test_leases_of_other_namespaces_do_not_count_while_agents_renew(cluster: RecordedCluster) -> None:
    cluster.fleet([node()])
    forged = agent_lease("node-1", RESTING, ago(20), namespace="team")
    cluster.put(AGENT_LEASES, agent_lease("node-2", ago(100), ago(20)), namespace="gpufleet-system")
    cluster.record(AGENT_LEASES.path(), json.dumps({"items": [forged]}))
    assert (state(), reads_of_leases(cluster)) == ("Stale", [OWN])


@pytest.mark.parametrize(
    "left", [[], [agent_lease("node-1", ago(900), ago(600))]], ids=["no Lease", "Lease of an earlier release"]
)
def test_agents_in_another_namespace_are_found(cluster: RecordedCluster, left: list[dict[str, Any]]) -> None:
    cluster.fleet([node()])
    cluster.put(AGENT_LEASES, *left, namespace="gpufleet-system")
    elsewhere = agent_lease("node-1", RESTING, ago(20), namespace="gpus")
    cluster.record(AGENT_LEASES.path(), json.dumps({"items": [elsewhere, *left]}))
    assert (state(), reads_of_leases(cluster)) == ("Free", [OWN, ALL])


def test_permission_for_the_namespace_of_the_agents_is_enough(cluster: RecordedCluster) -> None:
    cluster.fleet([node(RESTING, condition("Fresh", "True", "Fresh"))])
    cluster.fail(AGENT_LEASES.path(), FORBIDDEN)
    for renewed, expected in ((ago(20), "Free"), (ago(200), "Stale")):
        cluster.put(AGENT_LEASES, agent_lease("node-1", RESTING, renewed), namespace="gpufleet-system")
        assert state() == expected
        assert not any(note.startswith("leases not read") for note in run_cli("top").notes)
    cluster.put(AGENT_LEASES, namespace="gpufleet-system")  # the agents are in another one
    assert run_cli("top").notes[0].startswith("leases not read: ")


def test_placement_on_a_cluster_counts_leases(cluster: RecordedCluster) -> None:
    def usable(*arguments: object) -> int:
        return int(run_cli("rank", "-o", "json", *arguments).json["devicesEligible"])

    cluster.fleet([node()], leases=[agent_lease("node-1", RESTING, ago(20))])
    assert (usable(), usable("--stale-after", 10), usable("--stale-after", 1000)) == (1, 0, 1)
    assert reads_of_leases(cluster) == [OWN] * 2
    cluster.fleet([node()])
    assert usable() == 0
    cluster.fleet([node(RESTING, condition("Fresh", "True", "Fresh"))])
    cluster.fail(AGENT_LEASES.path(), FORBIDDEN)
    assert usable() == 1
