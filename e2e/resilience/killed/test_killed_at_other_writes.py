"""The operator is killed before and after writes that place no pod, and the end is that without kills (I6).

They keep nodes, record what runs used, and delete what expired. Those of a placement are in `test_killed_at_write.py`.
"""

import pytest

from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.lives import (
    BOTH,
    Life,
    Stage,
    check_life,
    demands,
    node_state,
    reservations,
    suspended,
)
from gpufleet_e2e.faults.mortal_operator import MortalOperator
from gpufleet_e2e.support import api
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import BY_HAND
from gpufleet_e2e.support.manifests import pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

pytestmark = pytest.mark.installs("operator")

USED_MIB = 9_000
LONG_AGO = "2020-01-01T00:00:00Z"


def complete(stage: Stage) -> None:
    """The workload was deleted after its time to live, and its only run is recorded."""
    assert not stage.namespace.exists(stage.name)
    assert not reservations(stage)
    found = [one.get("status", {}) for one in demands(stage)]
    assert [run["state"] for status in found for run in status.get("runs", ())] == ["Ended"], found


def waits_for_a_scheduler(stage: Stage) -> None:
    """The node of a pod that is not bound is kept until the workload is suspended."""
    stage.apply(template=pod_spec(schedulerName=BY_HAND))
    eventually(lambda: _is_kept(stage), within=stage.within)
    stage.edit(suspend=True)


def _is_kept(stage: Stage) -> None:
    assert node_state(stage)["kept"] == "true"


def not_kept(stage: Stage) -> None:
    suspended(stage)
    assert node_state(stage)["kept"] is None


def runs_once(stage: Stage) -> None:
    """What a container used of a shared device is recorded, and its workload is deleted when it has ended."""
    uuid = stage.fleet.gpus[stage.node].uuids[0]
    shared = {"mode": "Shared", "memoryMiB": 2 * USED_MIB}
    template = pod_spec(restartPolicy="Never")
    stage.apply(devices=shared, uuids=(uuid,), template=template, runPolicy={"ttlSecondsAfterFinished": 1})
    stage.namespace.wait_ready(stage.name, within=stage.within)
    stage.fleet.gpus[stage.node].report(uuid, memory_used_mib=USED_MIB)
    eventually(lambda: _is_counted(stage), within=stage.within)
    for process in stage.fleet.processes(stage.node, stage.namespace.pod(stage.name)):
        stage.fleet.node(stage.node).run(["kill", "-TERM", str(process)], check=False)


def _is_counted(stage: Stage) -> None:
    found = [one.get("status", {}) for one in demands(stage)]
    assert [(one.get("countedRuns"), one.get("maxMiB")) for one in found] == [(1, USED_MIB)], found


def is_not_used_for_long(stage: Stage) -> None:
    """What a run used is recorded, and the last run was long ago."""
    runs_once(stage)
    eventually(lambda: complete(stage), within=stage.within)
    (demand,) = demands(stage)
    path = f"{api.demands(stage.namespace.name)}/{demand['metadata']['name']}"
    stage.fleet.api.patch(f"{path}/status", {"status": {"observedAt": LONG_AGO}})


def forgotten(stage: Stage) -> None:
    assert not stage.namespace.exists(stage.name)
    assert not demands(stage)


LIVES = {
    "scale-down": Life({writes.ANNOTATE_NODE: (*BOTH, *BOTH)}, waits_for_a_scheduler, not_kept),
    "end": Life(
        {writes.APPLY_DEMAND: BOTH, writes.DEMAND_STATUS: BOTH, writes.DELETE_WORKLOAD: BOTH}, runs_once, complete
    ),
    "expiry": Life({writes.DELETE_DEMAND: BOTH}, is_not_used_for_long, forgotten),
}


@pytest.mark.parametrize("life", LIVES)
def test_kills_at_each_other_kind_of_write_lead_to_the_same_end(
    namespace: TestNamespace, fleet: Fleet, operator: MortalOperator, life: str
) -> None:
    check_life(namespace, operator, LIVES[life], fleet.nodes[1])
