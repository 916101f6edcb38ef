"""The driver of a node is replaced: by NVIDIA's GPU Operator, which pauses its clients, and under a running agent."""

from collections.abc import Iterator
from functools import partial
from time import monotonic

import pytest

from gpufleet_e2e.proof.contract import WORKLOAD_LABEL
from gpufleet_e2e.support.fleet import AGENTS, Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

LABEL = "nvidia.com/gpu.deploy.client"
VERSION = "590.44.01"
NOT_LOADED, MISMATCH = 9, 18
CLOSED_SECONDS = 10
"""GPU Operator waits for the pods of a paused client to end before it unloads the driver."""


@pytest.fixture
def pausable(fleet: Fleet) -> Iterator[None]:
    """Agents run where the label is `true`, as docs/operations/driver-upgrades.md describes."""
    for node in fleet.nodes:
        _label(fleet, node, "true")
    _select(fleet, "true")
    yield
    _select(fleet, None)
    for node in fleet.nodes:
        _label(fleet, node, None)
        fleet.cluster.kubectl("uncordon", node)
    eventually(lambda: _agents_are_current(fleet), within=60)


@pytest.mark.usefixtures("pausable")
def test_driver_is_replaced_while_clients_are_paused_and_under_an_agent(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the node selector removes the agent, which closes NVML; NVML's codes end or restart a running agent.

    The page's walk: drain the pods of workloads, pause the clients, replace the driver, resume. Then the same
    change on the other node without a pause: code 9 while the module is unloaded, code 18 while library and module
    differ, the new version.
    """
    other, node = fleet.nodes
    fleet.cluster.kubectl("cordon", other)
    namespace.apply(gpuworkload("moved", uuids=(fleet.gpus[node].uuids[2], fleet.gpus[other].uuids[2])))
    namespace.verify("moved")
    assert namespace.pod("moved")["spec"]["nodeName"] == node
    fleet.cluster.kubectl("uncordon", other)

    fleet.cluster.kubectl("drain", node, f"--pod-selector={WORKLOAD_LABEL}", "--timeout=30s")
    namespace.verify("moved")
    assert namespace.pod("moved")["spec"]["nodeName"] == other
    gpus = fleet.gpus[node]
    assert gpus.clients(), "no process has the driver open: this test would show nothing"
    _label(fleet, node, "paused-for-driver-upgrade")
    begin = monotonic()
    eventually(partial(_no_clients, fleet, node), within=CLOSED_SECONDS)
    print(f"NVML closed after {monotonic() - begin:.1f} s")
    for code in (NOT_LOADED, MISMATCH):
        gpus.driver(error=code)
    gpus.driver(version=VERSION)
    _label(fleet, node, "true")
    fleet.cluster.kubectl("uncordon", node)
    eventually(partial(_reports_driver, fleet, node), within=60)

    restarts = _agent_restarts(fleet, other)
    fleet.gpus[other].driver(error=NOT_LOADED)
    eventually(partial(_has_no_driver, fleet, other), within=30)
    fleet.gpus[other].driver(error=MISMATCH)
    eventually(partial(_has_restarted, fleet, other, restarts), within=30)
    fleet.gpus[other].driver(version=VERSION)
    eventually(partial(_reports_driver, fleet, other), within=60)
    namespace.verify("moved")


def _label(fleet: Fleet, node: str, value: str | None) -> None:
    fleet.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {LABEL: value}}})


def _select(fleet: Fleet, value: str | None) -> None:
    fleet.api.patch(AGENTS, {"spec": {"template": {"spec": {"nodeSelector": {LABEL: value}}}}})
    eventually(lambda: _agents_are_current(fleet), within=60)


def _agents_are_current(fleet: Fleet) -> None:
    agents = fleet.api.get(AGENTS)
    status = agents["status"]
    assert status["observedGeneration"] == agents["metadata"]["generation"]
    assert status.get("updatedNumberScheduled", 0) == len(fleet.nodes)
    assert status.get("numberReady", 0) == len(fleet.nodes)


def _no_clients(fleet: Fleet, node: str) -> None:
    assert fleet.gpus[node].clients() == ()


def _reports_driver(fleet: Fleet, node: str) -> None:
    status = fleet.telemetry(node)["status"]
    assert (status.get("driverVersion"), status["summary"]["state"]) == (VERSION, "Ready")
    assert status["summary"]["healthy"] == status["summary"]["devices"] == len(fleet.gpus[node].uuids)


def _has_no_driver(fleet: Fleet, node: str) -> None:
    assert fleet.telemetry(node)["status"]["summary"]["state"] == "NoDriver"


def _agent_restarts(fleet: Fleet, node: str) -> int:
    (container,) = fleet.agent_pod(node)["status"]["containerStatuses"]
    return int(container["restartCount"])


def _has_restarted(fleet: Fleet, node: str, before: int) -> None:
    assert _agent_restarts(fleet, node) > before
