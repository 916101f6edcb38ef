"""The operator is killed between the reservation and the release of a pod, or is down while objects change."""

from gpufleet_e2e.faults.fault_injection import BLOCKED_LABELS, release_blocked
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

UNSEEN_SECONDS = 60
"""Until devices of a pod are free whose end was not reported: a heartbeat, and time for containers to end."""


def test_killed_between_reservation_and_release(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the ledger is only `spec.assignments`, so a new process continues where the old one was killed.

    A policy of the test rejects the release, so that the operator is killed between reservation and release. The new
    process releases the same pod with the same devices.
    """
    with release_blocked(fleet.api, namespace.name):
        namespace.apply(gpuworkload("train", count=4, labels=BLOCKED_LABELS))
        reserved = eventually(lambda: namespace.reservation("train"), within=15)
        fleet.stop_operator()
    pod = namespace.pod("train")
    assert _gates(pod) == [GATE]
    assert pod["metadata"]["uid"] == reserved["podUID"]
    assert namespace.reservation("train") == reserved, "the reservation changed while the operator was down"
    fleet.start_operator()
    (replica,) = namespace.verify("train")["train"].replicas
    assert replica.picked == tuple(sorted(reserved["devices"]))
    assert replica.pod_uid == reserved["podUID"]
    assert namespace.reservation("train") == reserved


def test_workload_deleted_after_the_operator_is_killed(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: there are no finalizers; a reservation whose pod is gone is found in the ledger and released."""
    with release_blocked(fleet.api, namespace.name):
        namespace.apply(gpuworkload("train", count=8, node=fleet.nodes[1], labels=BLOCKED_LABELS))
        eventually(lambda: namespace.reservation("train"), within=15)
        fleet.stop_operator()
    namespace.delete("train")
    eventually(lambda: _nothing_left(namespace, "train"), within=20)
    assert fleet.assignments(namespace.name), "the reservation is gone although the operator was down"
    fleet.start_operator()
    eventually(lambda: _no_reservation(namespace, fleet), within=UNSEEN_SECONDS)
    # All eight devices are free: the next workload gets them.
    namespace.apply(gpuworkload("next", count=8, node=fleet.nodes[1]))
    namespace.verify("next")


def test_running_workload_deleted_while_the_operator_is_down(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: garbage collection deletes owned pods; the devices are freed when the operator runs again."""
    namespace.apply(
        gpuworkload("gone", count=8, node=fleet.nodes[1]), gpuworkload("stays", count=2, node=fleet.nodes[0])
    )
    before = namespace.verify("gone", "stays")["stays"].replicas[0]
    fleet.stop_operator()
    namespace.delete("gone")
    eventually(lambda: _nothing_left(namespace, "gone"), within=30)
    assert {one["workload"] for one in fleet.assignments(namespace.name).values()} == {"gone", "stays"}
    fleet.start_operator()

    def only_stays() -> None:
        left = {one["workload"] for one in fleet.assignments(namespace.name).values()}
        assert left == {"stays"}, f"reservations of {left}"

    eventually(only_stays, within=UNSEEN_SECONDS)
    namespace.apply(gpuworkload("next", count=8, node=fleet.nodes[1]))
    after = namespace.verify("next", "stays")["stays"].replicas[0]
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked), "a running pod changed"


def test_pods_are_created_and_confirmed_across_restarts(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: everything is level-triggered.

    A workload applied while the operator is down is placed when it is back; one confirmed before keeps its pod.
    """
    namespace.apply(gpuworkload("early"))
    before = namespace.verify("early")["early"].replicas[0]
    fleet.stop_operator()
    namespace.apply(gpuworkload("late"))
    assert not namespace.pods("late")
    fleet.start_operator()
    after = namespace.verify("early", "late")["early"].replicas[0]
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked)
    assert objects.is_true(namespace.workload("early"), "Ready")


def _gates(pod: JsonObject) -> list[str]:
    return [gate["name"] for gate in pod["spec"].get("schedulingGates", [])]


def _nothing_left(namespace: TestNamespace, name: str) -> None:
    left = [pod["metadata"]["name"] for pod in namespace.all_pods(name)]
    assert not left, f"pods {left} are stuck"


def _no_reservation(namespace: TestNamespace, fleet: Fleet) -> None:
    left = fleet.assignments(namespace.name)
    assert not left, f"leaked: {left}"
