"""The operator is killed before and after writes that others wait for, and the end is that without kills (I6).

Autoscalers wait for placeholder pods, users for the reason why a pod is gated, clients for a Service, tools that cordon
nodes for conditions, and a workload of a higher PriorityClass for the devices of another one.
"""

from collections.abc import Iterator

import pytest

from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION, WAITING_FOR_ANNOTATION
from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import (
    BOTH,
    Life,
    Stage,
    check_life,
    conditions_of,
    node_state,
    placeholders,
    ready,
    ready_first,
    suspended,
    telemetry_conditions,
)
from gpufleet_e2e.faults.mortal_operator import MortalOperator
from gpufleet_e2e.support.api import TELEMETRY, services
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

pytestmark = pytest.mark.installs("operator")

CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
HIGH = "gpufleet-test-killed"
BY_HAND = {"by-hand": "true"}


def waits_for_devices(stage: Stage) -> None:
    """A workload that no node can have asks autoscalers for one, until it is suspended."""
    stage.apply(count=len(stage.fleet.gpus[stage.node].uuids) + 1, placement={"scaleUp": True})
    eventually(lambda: _is_asked_for(stage), within=stage.within)
    stage.edit(suspend=True)


def _is_asked_for(stage: Stage) -> None:
    found = placeholders(stage)
    assert ["PodScheduled" in conditions_of(pod) for pod in found] == [True], found
    assert stage.namespace.pod(stage.name)["metadata"].get("annotations", {}).get(WAITING_FOR_ANNOTATION)


def asks_for_nothing(stage: Stage) -> None:
    suspended(stage)
    assert not placeholders(stage)


def service_is_changed(stage: Stage) -> None:
    (service,) = stage.fleet.api.list(services(stage.namespace.name))
    path = f"{services(stage.namespace.name)}/{service['metadata']['name']}"
    stage.fleet.api.patch(path, {"spec": {"selector": BY_HAND}})


def service_is_restored(stage: Stage) -> None:
    ready(stage)
    (service,) = stage.fleet.api.list(services(stage.namespace.name))
    assert not service["spec"]["selector"].keys() & BY_HAND


def has_a_fault_for_a_while(stage: Stage) -> None:
    """A device falls off the bus, and the fault is acknowledged when everybody has been told."""
    stage.fleet.gpus[stage.node].xid(stage.fleet.gpus[stage.node].uuids[0], 79)
    eventually(lambda: _is_healthy(stage, "False"), within=stage.within)
    path = f"{TELEMETRY}/{stage.node}"
    observed = stage.fleet.api.get(path)["status"]["observedAt"]
    stage.fleet.api.patch(path, {"metadata": {"annotations": {ACKNOWLEDGED_FAULTS_ANNOTATION: observed}}})


def _is_healthy(stage: Stage, status: str) -> None:
    assert telemetry_conditions(stage)["Healthy"][0] == status
    assert node_state(stage)["GPUHealthy"][0] == status


def takes_devices_of_another(stage: Stage) -> None:
    """A workload of a higher PriorityClass is made on a node that is full."""
    everything = len(stage.fleet.gpus[stage.node].uuids)
    stage.namespace.apply(gpuworkload("low", count=everything, node=stage.node))
    stage.namespace.wait_ready("low", within=stage.within)
    stage.apply(template=pod_spec(priorityClassName=HIGH))


def low_waits(stage: Stage) -> None:
    ready(stage)
    status = stage.namespace.workload("low")["status"]
    assert (status.get("readyReplicas", 0), status.get("failed", 0)) == (0, 0), status
    assert all(pod["spec"].get("schedulingGates") for pod in stage.namespace.pods("low"))


LIVES = {
    "scale-up": Life(
        {
            writes.CREATE_PLACEHOLDER: BOTH,
            writes.REPORT_PLACEHOLDER: BOTH,
            writes.DELETE_PLACEHOLDER: BOTH,
            writes.EXPLAIN_POD: BOTH,
            writes.CREATE_EVENT: BOTH,
        },
        waits_for_devices,
        asks_for_nothing,
    ),
    "service": Life({writes.RESTORE_SERVICE: BOTH}, ready_first(service_is_changed, replicas=2), service_is_restored),
    "fault": Life(
        {writes.TELEMETRY_CONDITIONS: BOTH, writes.NODE_CONDITION: BOTH},
        has_a_fault_for_a_while,
        lambda stage: _is_healthy(stage, "True"),
    ),
    "preemption": Life({writes.EVICT: BOTH}, takes_devices_of_another, low_waits),
}


@pytest.fixture(scope="module", autouse=True)
def priority_class(fleet: Fleet) -> Iterator[None]:
    """A PriorityClass of a value above that of other pods."""
    body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": HIGH}, "value": 1000}
    fleet.api.create(CLASSES, body)
    yield
    fleet.api.delete(f"{CLASSES}/{HIGH}")


@pytest.mark.parametrize("life", LIVES)
def test_kills_at_writes_that_others_wait_for_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, operator: MortalOperator, life: str
) -> None:
    check_life(namespace, operator, LIVES[life], fleet.nodes[1])
