"""A cordoned GPU gets no new pod, is drained as far as PodDisruptionBudgets allow, and returns by itself."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import TELEMETRY, JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import READY_SECONDS, TestNamespace

UNTIL_SECONDS = 3
BUDGET = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "serves"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "serves"}}},
}


class Cordon:
    """The cordoned devices of a node."""

    def __init__(self, fleet: Fleet, node: str) -> None:
        self._fleet, self.node = fleet, node

    def set(self, *entries: dict[str, Any]) -> None:
        """Replaces all entries, as an administrator."""
        self._fleet.api.patch(f"{TELEMETRY}/{self.node}", {"spec": {"cordoned": list(entries)}})


@pytest.fixture
def cordon(fleet: Fleet) -> Iterator[Cordon]:
    """The smaller node; at the end all of its devices are in service."""
    found = Cordon(fleet, fleet.nodes[1])
    yield found
    found.set()


def test_cordoned_gpu_is_drained_and_returns_by_itself(namespace: TestNamespace, fleet: Fleet, cordon: Cordon) -> None:
    """Mechanism: the eviction API rejects as long as the budget does; `until` is compared with the current time."""
    namespace.apply(gpuworkload("serves", node=cordon.node, labels={"app": "serves"}))
    (uuid,) = namespace.devices("serves")
    before = namespace.pod("serves")["metadata"]["uid"]
    budgets = f"/apis/policy/v1/namespaces/{namespace.name}/poddisruptionbudgets"
    fleet.api.create(budgets, BUDGET)
    cordon.set({"uuid": uuid, "reason": "fan", "by": "ann", "drain": True})
    print(namespace.event("serves", "EvictionBlocked"))
    assert namespace.pod("serves")["metadata"]["uid"] == before
    namespace.apply(gpuworkload("on-it", uuids=(uuid,)))
    explanation = namespace.wait_rejected("on-it", "Cordoned", 1, within=READY_SECONDS)
    assert "is cordoned by ann: fan" in explanation["message"], explanation

    fleet.api.delete(f"{budgets}/serves")
    eventually(lambda: _replaced(namespace, before), within=READY_SECONDS)
    assert namespace.devices("serves") != (uuid,)
    print(namespace.event("serves", "PodEvicted"))

    eventually(lambda: _two_are_not_free(fleet, cordon.node), within=READY_SECONDS)
    end = datetime.now(UTC) + timedelta(seconds=UNTIL_SECONDS)
    cordon.set({"uuid": uuid, "reason": "fan", "until": end.strftime("%Y-%m-%dT%H:%M:%SZ")})
    assert namespace.devices("on-it") == (uuid,)
    assert datetime.now(UTC) >= end - timedelta(seconds=1), "the device was used before"
    assert len(fleet.telemetry(cordon.node)["spec"]["cordoned"]) == 1, "another writer removed the entry"


def test_drain_moves_a_pod_without_a_workload(namespace: TestNamespace, fleet: Fleet, cordon: Cordon) -> None:
    """Mechanism: the agent reports who has the device. A pod that nobody creates again stays, and is named."""
    alone, labels = plain_pod("alone", count=1), {"app": "bare"}
    alone["spec"]["nodeSelector"] = {"kubernetes.io/hostname": cordon.node}
    template = {"metadata": {"labels": labels}, "spec": {**alone["spec"], "restartPolicy": "Always"}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bare"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    deployments = f"/apis/apps/v1/namespaces/{namespace.name}/deployments"
    fleet.api.create(deployments, deployment)
    fleet.api.create(pods(namespace.name), alone)
    try:
        held = eventually(lambda: _held(namespace, cordon, 2), within=READY_SECONDS)
        moved = next(pod for pod in held if pod != "alone")
        cordon.set(*({"uuid": uuid, "reason": "fan", "drain": True} for uuid in held.values()))
        print(namespace.event(moved, "PodEvicted"))
        eventually(lambda: _in_use(fleet, cordon, f"{held['alone']}: {namespace.name}/alone"), within=READY_SECONDS)
        fleet.api.delete(f"{pods(namespace.name)}/alone")
        eventually(lambda: _drained(fleet, cordon), within=READY_SECONDS)
        (successor,) = eventually(lambda: _held(namespace, cordon, 1), within=READY_SECONDS)
        assert successor != moved
    finally:
        fleet.api.delete(f"{deployments}/bare")


def _held(namespace: TestNamespace, cordon: Cordon, number: int) -> dict[str, str]:
    """Returns the pods of the namespace that have a device, by name."""
    devices = namespace.fleet.telemetry(cordon.node)["status"]["devices"]
    found = {
        one["pod"]: device["uuid"]
        for device in devices
        for one in device.get("allocatedTo", [])
        if one["namespace"] == namespace.name
    }
    assert len(found) == number, f"holders: {found}"
    return found


def _condition(fleet: Fleet, cordon: Cordon) -> JsonObject:
    return dict(objects.condition(fleet.telemetry(cordon.node), "Drained"))


def _in_use(fleet: Fleet, cordon: Cordon, message: str) -> None:
    found = _condition(fleet, cordon)
    assert (found.get("reason"), found.get("message")) == ("InUse", message), found


def _drained(fleet: Fleet, cordon: Cordon) -> None:
    found = _condition(fleet, cordon)
    assert found.get("status") == "True", found


def _replaced(namespace: TestNamespace, before: str) -> None:
    assert namespace.pod("serves")["metadata"]["uid"] != before, "not evicted yet"


def _two_are_not_free(fleet: Fleet, node: str) -> None:
    summary = fleet.telemetry(node)["status"]["summary"]
    assert summary["free"] == summary["devices"] - 2, f"one device has the pod, and one is cordoned: {summary}"
