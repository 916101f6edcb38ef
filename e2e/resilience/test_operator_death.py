"""The operator is killed between the reservation and the release of a pod, or is down while objects change."""

from functools import partial

from gpufleet_e2e.faults.fault_injection import BLOCKED_LABELS, release_blocked, reservations_denied, statuses_denied
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.claims import claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

UNSEEN_SECONDS = 60
"""Until devices of a pod are free whose end was not reported: a heartbeat, and time for containers to end."""


def test_changes_while_the_operator_is_down(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: everything is level-triggered, there are no finalizers, and garbage collection deletes owned pods.

    The operator is killed between the reservation and the release of a pod. Then this workload and one that runs are
    deleted, and one that needs the devices of both is created. The pod that runs all the time stays.
    """
    first, second = fleet.nodes
    with release_blocked(fleet.api, namespace.name):
        namespace.apply(
            gpuworkload("reserved", count=4, node=second, labels=BLOCKED_LABELS),
            gpuworkload("running", count=4, node=second),
            gpuworkload("stays", count=2, node=first),
        )
        before = namespace.verify("running", "stays")["stays"].replicas[0]
        eventually(lambda: namespace.reservation("reserved"), within=15)
        fleet.stop_operator()
    namespace.delete("reserved", "running")
    namespace.apply(gpuworkload("late", count=8, node=second))
    for name in ("reserved", "running"):
        eventually(partial(_nothing_left, namespace, name), within=30)
    assert _reserved(namespace, fleet) == {"reserved", "running", "stays"}, "changed although the operator was down"
    assert not namespace.all_pods("late")
    fleet.start_operator()
    after = namespace.verify("late", "stays", within=UNSEEN_SECONDS)["stays"].replicas[0]
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked), "a running pod changed"
    assert _reserved(namespace, fleet) == {"late", "stays"}
    eventually(lambda: _claims(namespace, 2 if transport == "DRA" else 0), within=15)


def test_killed_after_each_write(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: what is left to do follows from the stored objects.

    Policies of the test reject the next write of each workload: one has a pod, one a reservation, one a claim too, and
    one runs without a status that says so. The operator is killed; the next one keeps pods, reservations and claims.
    """
    first, second = fleet.nodes
    created, reserved, claimed, running = "created", "reserved", "claimed", "running"
    with (
        release_blocked(fleet.api, namespace.name),
        reservations_denied(fleet.api, second, namespace.name),
        statuses_denied(fleet.api, namespace.name, running),
    ):
        namespace.apply(
            gpuworkload(created, count=2, node=second),
            gpuworkload(reserved, count=2, node=first, labels=BLOCKED_LABELS),
            gpuworkload(claimed, count=2, node=first, labels=BLOCKED_LABELS),
            gpuworkload(running, count=2, node=first),
        )
        eventually(lambda: _is_running(namespace, running), within=UNSEEN_SECONDS)
        pods = {name: eventually(partial(namespace.pod, name), within=15) for name in (created, running)}
        before = {
            name: eventually(partial(namespace.reservation, name), within=15) for name in (reserved, claimed, running)
        }
        made = eventually(lambda: _claims(namespace, 3 if transport == "DRA" else 0), within=15)
        fleet.stop_operator()
        assert not objects.is_true(namespace.workload(running), "Ready")
        if transport == "DRA":  # its creation cannot be delayed: a rejection frees the devices
            (lost,) = (name for name in made if name.startswith(f"gpufleet-{reserved}"))
            fleet.api.delete(f"{claims(namespace.name)}/{lost}")
            del made[lost]
    assert _gates(namespace.pod(created)) == _gates(namespace.pod(claimed)) == [GATE]
    fleet.start_operator()
    found = namespace.verify(created, *before)
    for name, reservation in before.items():
        (replica,) = found[name].replicas
        assert (replica.pod_uid, replica.picked) == (reservation["podUID"], tuple(sorted(reservation["devices"])))
        # The next process dates it anew to prove, by the generation, that it has it when it releases the pod.
        assert {**namespace.reservation(name), "decidedAt": None} == {**reservation, "decidedAt": None}
    for name, pod in pods.items():
        assert found[name].replicas[0].pod_uid == pod["metadata"]["uid"], f"{name} has another pod"
    after = _claims(namespace, 4 if transport == "DRA" else 0)
    assert {name: after[name] for name in made} == made, "a claim was replaced"


def _is_running(namespace: TestNamespace, name: str) -> None:
    assert namespace.pod(name)["status"]["phase"] == "Running"


def _claims(namespace: TestNamespace, number: int) -> dict[str, str]:
    """Returns the uids of all claims, by name."""
    found = {
        one["metadata"]["name"]: one["metadata"]["uid"] for one in namespace.fleet.api.list(claims(namespace.name))
    }
    assert len(found) == number, f"claims: {sorted(found)}"
    return found


def _gates(pod: JsonObject) -> list[str]:
    return [gate["name"] for gate in pod["spec"].get("schedulingGates", [])]


def _nothing_left(namespace: TestNamespace, name: str) -> None:
    left = [pod["metadata"]["name"] for pod in namespace.all_pods(name)]
    assert not left, f"pods {left} are stuck"


def _reserved(namespace: TestNamespace, fleet: Fleet) -> set[str]:
    """Returns the names of the workloads with a reservation."""
    return {one["workload"] for one in fleet.assignments(namespace.name).values()}
