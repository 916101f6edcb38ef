"""The operator dies between the reservation and the release of the pod, or is away while things happen."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fault_injection import HELD, held
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

UNSEEN_SECONDS = 60
"""Until devices of a pod are free whose end nobody saw: a heartbeat of the agent, and time for containers to die."""


def test_killed_between_reservation_and_release(room: Room, fleet: Fleet) -> None:
    """Mechanism: the ledger is `spec.assignments` alone, so a new process goes on where the old one was killed.

    A policy of the test refuses the release, so the reservation stands without it when the operator is killed. The new
    one releases the same pod with the same devices.
    """
    with held(fleet.api, room.namespace):
        room.apply(gpuworkload("train", count=4, labels=HELD))
        reserved = eventually(lambda: room.reserved("train"), within=15)
        fleet.stop_operator()
    pod = room.pod("train")
    assert _gates(pod) == [GATE]
    assert pod["metadata"]["uid"] == reserved["podUID"]
    assert room.reserved("train") == reserved, "nobody is there to write it anew"
    fleet.start_operator()
    (replica,) = room.proven("train")["train"].replicas
    assert replica.picked == tuple(sorted(reserved["devices"]))
    assert replica.pod_uid == reserved["podUID"]
    assert room.reserved("train") == reserved


def test_killed_then_the_workload_is_deleted(room: Room, fleet: Fleet) -> None:
    """Mechanism: no finalizer anywhere; a reservation whose pod is gone is found in the ledger and freed."""
    with held(fleet.api, room.namespace):
        room.apply(gpuworkload("train", count=8, node=fleet.nodes[1], labels=HELD))
        eventually(lambda: room.reserved("train"), within=15)
        fleet.stop_operator()
    room.delete("train")
    eventually(lambda: _nothing_left(room, "train"), within=20)
    assert fleet.assignments(room.namespace), "the reservation can't have gone while nobody was there"
    fleet.start_operator()
    eventually(lambda: _no_reservation(room, fleet), within=UNSEEN_SECONDS)
    # All eight are free again: the next workload gets them.
    room.apply(gpuworkload("next", count=8, node=fleet.nodes[1]))
    room.proven("next")


def test_running_workload_deleted_while_the_operator_is_away(room: Room, fleet: Fleet) -> None:
    """Mechanism: pods are owned, so garbage collection takes them; the devices are freed when the operator is back."""
    room.apply(gpuworkload("gone", count=8, node=fleet.nodes[1]), gpuworkload("stays", count=2, node=fleet.nodes[0]))
    before = room.proven("gone", "stays")["stays"].replicas[0]
    fleet.stop_operator()
    room.delete("gone")
    eventually(lambda: _nothing_left(room, "gone"), within=30)
    assert {one["workload"] for one in fleet.assignments(room.namespace).values()} == {"gone", "stays"}
    fleet.start_operator()

    def only_stays() -> None:
        left = {one["workload"] for one in fleet.assignments(room.namespace).values()}
        assert left == {"stays"}, f"reservations of {left}"

    eventually(only_stays, within=UNSEEN_SECONDS)
    room.apply(gpuworkload("next", count=8, node=fleet.nodes[1]))
    after = room.proven("next", "stays")["stays"].replicas[0]
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked), "a running pod was touched"


def test_pod_is_made_and_confirmed_across_restarts(room: Room, fleet: Fleet) -> None:
    """Mechanism: everything is level-triggered.

    Applied while nobody is there, it is placed when somebody is; confirmed before, it and its pod stay as they are.
    """
    room.apply(gpuworkload("early"))
    before = room.proven("early")["early"].replicas[0]
    fleet.stop_operator()
    room.apply(gpuworkload("late"))
    assert not room.pods("late")
    fleet.start_operator()
    after = room.proven("early", "late")["early"].replicas[0]
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked)
    assert objects.is_true(room.workload("early"), "Ready")


def _gates(pod: JsonObject) -> list[str]:
    return [gate["name"] for gate in pod["spec"].get("schedulingGates", [])]


def _nothing_left(room: Room, name: str) -> None:
    left = [pod["metadata"]["name"] for pod in room.every_pod(name)]
    assert not left, f"pods {left} are stuck"


def _no_reservation(room: Room, fleet: Fleet) -> None:
    left = fleet.assignments(room.namespace)
    assert not left, f"leaked: {left}"
