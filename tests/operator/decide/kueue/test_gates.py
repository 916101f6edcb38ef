"""Decisions on pods that have the gate of Kueue beside that of gpufleet."""

from dataclasses import replace

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.kueue.names import SCHEDULING_GATE as KUEUE_GATE
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_testing.operator import make, results

BOTH = (SCHEDULING_GATE, KUEUE_GATE, "kueue.x-k8s.io/topology")
"""Kueue adds two."""


def gang(*pods: Pod, quota: bool = True) -> Snapshot:
    """A gang of two with these pods, and devices for both."""
    workload = make.workload(replicas=2, placement={"gang": True})
    with_quota = {(pod.namespace, pod.uid) for pod in pods} if quota else set()
    reserved = [make.assignment(pod, f"GPU-1-{pod.replica}", replicas=2) for pod in pods]
    return make.snapshot(workload, *pods, make.telemetry(assignments=reserved), with_quota=with_quota)


def run(pod: Pod, *, quota: bool, reserved: bool = False) -> Actions:
    found = make.telemetry(assignments=[make.assignment(pod)] if reserved else [])
    return decide(make.snapshot(make.workload(), pod, found, with_quota={(pod.namespace, pod.uid)} if quota else set()))


def test_pod_without_quota_gets_no_devices() -> None:
    assert not run(make.pod(gates=BOTH), quota=False).reserves


def test_pod_with_quota_gets_devices_and_keeps_both_gates() -> None:
    actions = run(make.pod(gates=BOTH), quota=True)

    assert [reserve.added for reserve in actions.reserves] == [(make.pod().uid,)]
    assert not actions.releases


def test_pod_with_reserved_devices_is_not_released_before_kueue_admits_it() -> None:
    actions = run(make.pod(gates=BOTH), quota=True, reserved=True)

    assert not actions.reserves
    assert not actions.releases
    assert results.message(actions.statuses[0], "Reconciling") == "waiting for Kueue to admit the pod"


def test_pod_that_kueue_has_admitted_is_released() -> None:
    (release,) = run(make.pod(), quota=True, reserved=True).releases

    removed = [op["path"] for op in release.patch if op["op"] == "remove"]
    assert removed == ["/spec/schedulingGates/0"]
    assert {"op": "test", "path": "/spec/schedulingGates/0/name", "value": SCHEDULING_GATE} in release.patch


def test_pod_that_lost_its_quota_releases_its_devices() -> None:
    (reserve,) = run(make.pod(gates=BOTH), quota=False, reserved=True).reserves

    assert reserve.removed == (make.pod().uid,)


def test_pod_with_a_third_gate_gets_no_devices() -> None:
    assert not run(make.pod(gates=(*BOTH, "example.com/quota")), quota=True).reserves


def test_gang_is_released_when_kueue_has_admitted_all_of_its_pods() -> None:
    """Kueue removes its gate from one pod after the other."""
    first, second = make.pod(), make.pod(replica=1, gates=BOTH)

    assert not decide(gang(first, second)).releases
    assert len(decide(gang(first, replace(second, gates=(SCHEDULING_GATE,)))).releases) == 2


def test_devices_on_a_node_outside_of_the_flavor_are_given_back() -> None:
    """Kueue adds the labels of the flavor to the node selector when it admits the pod."""
    pod = make.pod()
    pod = replace(pod, needs=replace(pod.needs, node_selector={"flavor": "spot"}))
    found = make.telemetry(assignments=[make.assignment(pod)])

    assert not decide(make.snapshot(make.workload(), pod, found)).releases
    assert decide(make.snapshot(make.workload(), pod, found, make.node(labels={"flavor": "spot"}))).releases
