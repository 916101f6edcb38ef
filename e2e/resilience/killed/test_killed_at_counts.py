"""The operator is killed before and after writes that count, and the end is that without kills (I6).

They count events, and leave a pod out of the count of its Job.
"""

import pytest

from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import BOTH, Life, Stage, check_life, ready, reservations
from gpufleet_e2e.faults.mortal_operator import MortalOperator
from gpufleet_e2e.kubernetes_features import MUTATING_POLICIES
from gpufleet_e2e.support.api import JsonObject, batch, events, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import adopting, job, plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

PLACED_OFTEN = 4
"""Once for the first event, once for each kill, and once that is counted."""


def is_placed_often(stage: Stage) -> None:
    """A workload is suspended and placed again, each time with an event of the same reason."""
    stage.apply()
    stage.namespace.wait_ready(stage.name, within=stage.within)
    for _ in range(PLACED_OFTEN - 1):
        stage.edit(suspend=True)
        eventually(lambda: stage.has("Suspended"), within=stage.within)
        stage.edit(suspend=False)
        stage.namespace.wait_ready(stage.name, within=stage.within)


def is_counted(stage: Stage) -> None:
    """All placements have one event. One that a killed process did not write is lost, as nothing depends on it."""
    ready(stage)
    found = [
        one["count"]
        for one in stage.fleet.api.list(events(stage.namespace.name))
        if one["involvedObject"]["name"] == stage.name and one["reason"] == "Placed"
    ]
    assert len(found) == 1, found
    assert 1 < found[0] <= PLACED_OFTEN, found


def is_rejected_and_placed_elsewhere(stage: Stage) -> None:
    """kube-scheduler rejects the node of a Job's pod; the Job completes without a failure on another one."""
    affinity = _best_node_is_rejected(stage)
    _create_job(stage, affinity, "exit 0")
    eventually(lambda: _has_completed(stage), within=stage.within)
    _forget(stage)


def has_nothing(stage: Stage) -> None:
    assert not stage.namespace.all_pods(stage.name)
    assert not reservations(stage)
    assert stage.namespace.workload(stage.name)["status"].get("state") == "Idle", stage.namespace.describe(stage.name)


def _best_node_is_rejected(stage: Stage) -> JsonObject:
    """Creates a workload that is placed on this node first; returns the affinity of a pod that cannot run there.

    Only kube-scheduler knows which namespaces a selector matches.
    """
    fleet, namespace = stage.fleet, stage.namespace
    other = next(node for node in fleet.nodes if node != stage.node)
    best, second = fleet.gpus[stage.node].uuids[0], fleet.gpus[other].uuids[0]
    fleet.gpus[other].report(second, utilization_percent=60)
    eventually(lambda: fleet.check_readings(other, second, utilization_percent=60), within=stage.within)
    labels = {"blocks": stage.name}
    body = plain_pod(_blocker(stage), labels=labels, nodeSelector={"kubernetes.io/hostname": stage.node})
    fleet.api.create(pods(namespace.name), body)
    namespace.wait_running(_blocker(stage), within=stage.within)
    namespace.apply(adopting(stage.name, requirements={"includeUUIDs": [best, second]}))
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": labels},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
    }
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _blocker(stage: Stage) -> str:
    return f"blocks-{stage.name}"


def _create_job(stage: Stage, affinity: JsonObject, command: str) -> None:
    body = job(stage.name, 1, command)
    body["spec"]["template"]["spec"]["affinity"] = affinity
    path = batch(stage.namespace.name)
    # The policy reads a GPUWorkload a moment after it was created.
    eventually(lambda: stage.fleet.api.create(path, body, dry_run=True), within=stage.within)
    stage.fleet.api.create(path, body)


def _has_completed(stage: Stage) -> None:
    status = stage.fleet.api.get(f"{batch(stage.namespace.name)}/{stage.name}").get("status", {})
    assert (status.get("succeeded", 0), status.get("failed", 0)) == (1, 0), status


def _forget(stage: Stage) -> None:
    stage.fleet.api.delete(f"{batch(stage.namespace.name)}/{stage.name}")


LIVES = {
    "events": Life({writes.COUNT_EVENT: BOTH}, is_placed_often, is_counted),
    "replaced": Life({writes.UNCOUNT_POD: BOTH}, is_rejected_and_placed_elsewhere, has_nothing),
}


@pytest.mark.installs("operator")
@pytest.mark.kubernetes(MUTATING_POLICIES)
@pytest.mark.parametrize("life", LIVES)
def test_kills_at_writes_that_count_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, operator: MortalOperator, life: str
) -> None:
    check_life(namespace, operator, LIVES[life], fleet.nodes[1])
