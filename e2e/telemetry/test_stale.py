"""Nodes with telemetry older than the limit are not picked, with that reason, until it is fresh again."""

from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic

import pytest

from gpufleet_api.names import AGENT_LEASE_PREFIX, OBSERVED_AT_ANNOTATION
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NODES
from gpufleet_e2e.support.fleet import LEASES, Fleet
from gpufleet_e2e.support.install import STALE_SECONDS
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

SOON_SECONDS = 5


@pytest.fixture
def frozen(namespace: TestNamespace, fleet: Fleet) -> Iterator[str]:
    """A node on which the workload `runs` holds a device, and whose agent then is frozen."""
    node = fleet.nodes[0]
    namespace.apply(gpuworkload("runs", node=node))
    namespace.verify("runs")
    fleet.freeze_agent(node)
    yield node
    fleet.thaw_agent(node)


def test_stale_node_is_skipped_until_it_reports_again(namespace: TestNamespace, fleet: Fleet, frozen: str) -> None:
    """Mechanism: age by the server's time of the last write. The stale node is skipped, the other one is used.

    A pod on the stale node keeps running, and its workload is Degraded because its devices cannot be checked.
    """
    before = _container(namespace)
    message = namespace.wait_condition("runs", "Degraded", "True", "TelemetryStale", within=STALE_SECONDS + 5)
    print(message)
    assert frozen in message
    _wait_fresh(fleet, frozen, "False", "Stale")
    rows = fleet.cluster.kubectl("get", "gputelemetries").stdout.splitlines()
    assert {row.split()[0]: row.split()[1] for row in rows[1:]} == {frozen: "Stale", fleet.nodes[1]: "Fresh"}, rows
    healthy = objects.condition(fleet.api.get(f"{NODES}/{frozen}"), "GPUHealthy")
    assert (healthy["status"], healthy["reason"]) == ("Unknown", "Stale"), healthy
    namespace.apply(gpuworkload("here-only", node=frozen), gpuworkload("anywhere", replicas=2, count=3))
    message = namespace.wait_condition("here-only", "Placed", "False", "NoDevicesAvailable")
    print(message)
    assert f"older than {STALE_SECONDS} s" in message
    explanation = namespace.workload("here-only")["status"]["explanation"]
    assert {one["reason"]: one["devices"] for one in explanation["ineligibleDevices"]}["TelemetryStale"] == 16, (
        explanation
    )
    assert {replica.node for replica in namespace.verify("anywhere")["anywhere"].replicas} == {fleet.nodes[1]}
    fleet.thaw_agent(frozen)
    began = monotonic()
    namespace.wait_for("here-only", lambda found: objects.is_true(found, "Placed"), SOON_SECONDS)
    print(f"picked again {monotonic() - began:.1f} s after the agent continued")
    namespace.verify("here-only", "runs", "anywhere")
    namespace.wait_condition("runs", "Degraded", "False", "AsExpected")
    _wait_fresh(fleet, frozen, "True", "Fresh")
    assert _container(namespace) == before, "a running pod changed"


def test_report_of_an_agent_at_rest_is_confirmed_by_its_lease(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the Lease names the report. A report that is older than the limit by itself is used for placement."""
    node = fleet.nodes[1]
    namespace.apply(gpuworkload("runs", node=node))
    namespace.verify("runs")

    def older_than_the_limit() -> datetime:
        lease = fleet.api.get(f"{LEASES}/{AGENT_LEASE_PREFIX}{node}")
        written = fleet.telemetry(node)["status"]["observedAt"]
        assert lease["metadata"]["annotations"][OBSERVED_AT_ANNOTATION] == written, lease
        age = (datetime.now(UTC) - datetime.fromisoformat(written)).total_seconds()
        assert age > STALE_SECONDS + 1, f"{node} was reported {age:.1f} s ago"
        return datetime.fromisoformat(written)

    written = eventually(older_than_the_limit, within=60)
    fresh = objects.condition(fleet.telemetry(node), "Fresh")
    assert fresh["status"] == "True", fresh
    assert datetime.fromisoformat(fresh["lastTransitionTime"]) < written, fresh
    namespace.apply(gpuworkload("later", node=node))
    namespace.verify("later")


def _wait_fresh(fleet: Fleet, node: str, status: str, reason: str) -> None:
    """Waits for the condition Fresh, which the operator writes: the agent may be gone."""

    def reached() -> None:
        fresh = objects.condition(fleet.telemetry(node), "Fresh")
        assert (fresh.get("status"), fresh.get("reason")) == (status, reason), fresh

    eventually(reached, within=SOON_SECONDS)


def _container(namespace: TestNamespace) -> str:
    return str(namespace.pod("runs")["status"]["containerStatuses"][0]["containerID"])
