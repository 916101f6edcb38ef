"""Taints of GPU nodes: the usual one is tolerated, others are named, and NoExecute moves pods."""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.support.api import NODES, JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

VENDOR = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
FAN = {"key": "example.com/fan", "value": "broken", "effect": "NoSchedule"}


class Taints:
    """The taints of one node that does not have the operator."""

    def __init__(self, fleet: Fleet) -> None:
        self._api = fleet.api
        operator = fleet.operator_pod()["spec"]["nodeName"]
        self.node = next(name for name in fleet.nodes if name != operator)

    def set(self, *taints: JsonObject) -> None:
        self._api.patch(f"{NODES}/{self.node}", {"spec": {"taints": list(taints)}})


@pytest.fixture
def taints(namespace: TestNamespace, fleet: Fleet) -> Iterator[Taints]:
    del namespace  # clearing it needs the agents, so the taints are removed before
    found = Taints(fleet)
    yield found
    found.set()


def test_vendor_taint_is_tolerated_and_others_are_named(namespace: TestNamespace, fleet: Fleet, taints: Taints) -> None:
    """Mechanism: tolerations of a configured list are added to pods; the engine filters by taints as kube-scheduler.

    A taint with NoExecute deletes the pod that runs, and the explanation of its successor names the taint.
    """
    taints.set(VENDOR)
    namespace.apply(gpuworkload("runs", node=taints.node))
    namespace.verify("runs")
    before = namespace.pod("runs")["metadata"]["uid"]

    taints.set(VENDOR, FAN)
    namespace.apply(gpuworkload("waits", node=taints.node))
    devices = len(fleet.gpus[taints.node].uuids)
    explanation = namespace.wait_rejected("waits", "TaintNotTolerated", devices, within=15)
    print(explanation["message"])
    assert "example.com/fan=broken:NoSchedule" in explanation["message"]
    assert namespace.pod("runs")["metadata"]["uid"] == before, "NoSchedule moved a pod that runs"

    taints.set(VENDOR, {**FAN, "effect": "NoExecute"})
    eventually(lambda: _replaced(namespace, before), within=15)
    message = namespace.wait_condition("runs", "Placed", "False", "NoDevicesAvailable")
    print(message)
    assert "example.com/fan=broken:NoExecute" in message
    assert not namespace.workload("runs")["status"].get("failed"), "the eviction counts as a failure"

    taints.set(VENDOR)
    namespace.verify("runs", "waits", within=60)


def _replaced(namespace: TestNamespace, before: str) -> None:
    assert namespace.pod("runs")["metadata"]["uid"] != before, "the pod was not evicted"
