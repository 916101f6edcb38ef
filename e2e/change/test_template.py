"""A changed template reaches the pods, and each replica keeps its devices although another workload waits for them."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject, pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import SLEEP, container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

ROLL_SECONDS = 60
SLOW_END = ("sh", "-c", "trap 'sleep 6; exit 0' TERM; sleep 1000000 & wait")


def test_changed_variable_rolls_one_by_one_and_keeps_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the reservation of a deleted pod is kept until it is passed on; `maxUnavailable` is 1."""
    before = _run(namespace, fleet, replicas=2)
    available = []
    _change(namespace)

    def updated() -> None:
        available.append(sum(_is_ready(pod) for pod in namespace.pods("serve")))
        _waits(namespace)
        found = namespace.workload("serve")
        status = found["status"]
        assert status["observedGeneration"] == found["metadata"]["generation"], "the change is not seen yet"
        assert (status["updatedReplicas"], status["ready"]) == (2, "2/2"), namespace.describe("serve")

    eventually(updated, within=ROLL_SECONDS)
    _waits(namespace)
    after = _devices(namespace)
    assert min(available) == 1, "both replicas were unavailable, or none"
    assert {i: place for i, (_, *place) in after.items()} == {i: place for i, (_, *place) in before.items()}
    assert all(after[index][0] != before[index][0] for index in before)
    assert [_variables(pod) for pod in namespace.pods("serve")] == [{"COLOR": "green"}] * 2
    namespace.wait_condition("serve", "Reconciling", "False", "Reconciled")


def test_operator_killed_during_a_roll_keeps_the_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the reservation says that it is kept, so that a new process of the operator knows as well."""
    before = _run(namespace, fleet, template=pod_spec(container(command=SLOW_END), terminationGracePeriodSeconds=20))
    _change(namespace, command=SLOW_END)
    eventually(lambda: _is_ending(namespace), within=15)
    fleet.stop_operator()
    assert [one.get("keepForSuccessor") for one in _reservations(namespace)] == [True]
    fleet.start_operator()
    namespace.wait_for("serve", lambda found: found["status"].get("updatedReplicas") == 1, within=30)
    after = _devices(namespace)
    _waits(namespace)
    assert after[0][0] != before[0][0]
    assert after[0][1:] == before[0][1:]


def test_on_delete_waits_for_the_user_and_keeps_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: reservations of outdated pods are kept, whoever deletes the pods."""
    before = _run(namespace, fleet, updateStrategy={"type": "OnDelete"})
    _change(namespace)
    namespace.wait_for("serve", lambda found: found["status"].get("updatedReplicas") == 0, within=15)
    eventually(lambda: _is_kept(namespace), within=30)
    assert _devices(namespace) == before
    fleet.api.delete(f"{pods(namespace.name)}/{namespace.pod('serve')['metadata']['name']}")
    namespace.wait_for("serve", lambda found: found["status"].get("updatedReplicas") == 1, within=30)
    after = _devices(namespace)
    _waits(namespace)
    assert after[0][1:] == before[0][1:]
    assert _variables(namespace.pod("serve")) == {"COLOR": "green"}


Place = tuple[str, str, tuple[str, ...]]
"""Pod uid, node, devices."""


def _run(namespace: TestNamespace, fleet: Fleet, replicas: int = 1, **spec: object) -> dict[int, Place]:
    """Runs workload `serve` on certain devices, and lets workload `greedy` wait for the same ones."""
    uuids = fleet.gpus[fleet.nodes[1]].uuids[:replicas]
    manifest = gpuworkload("serve", replicas=replicas, uuids=uuids)
    manifest["spec"].update({"template": {"spec": spec.pop("template", pod_spec())}, **spec})
    namespace.apply(manifest)
    found = _devices(namespace)
    namespace.apply(gpuworkload("greedy", uuids=uuids))
    namespace.wait_condition("greedy", "Placed", "False", "NoDevicesAvailable")
    return found


def _change(namespace: TestNamespace, command: tuple[str, ...] = SLEEP) -> None:
    """Adds a variable to the container."""
    changed = container(env=[{"name": "COLOR", "value": "green"}], command=command)
    patch = {"spec": {"template": {"spec": {"containers": [changed]}}}}
    namespace.fleet.api.patch(f"{workloads(namespace.name)}/serve", patch)


def _devices(namespace: TestNamespace) -> dict[int, Place]:
    replicas = namespace.verify("serve")["serve"].replicas
    return {one.replica: (one.pod_uid, one.node, one.picked) for one in replicas}


def _reservations(namespace: TestNamespace) -> list[JsonObject]:
    return list(namespace.fleet.assignments(namespace.name).values())


def _waits(namespace: TestNamespace) -> None:
    taken = [one for one in _reservations(namespace) if one["workload"] == "greedy"]
    if taken:
        raise RuntimeError(f"another workload got the devices: {taken}")


def _is_kept(namespace: TestNamespace) -> None:
    assert [one.get("keepForSuccessor") for one in _reservations(namespace)] == [True]


def _is_ending(namespace: TestNamespace) -> None:
    assert any("deletionTimestamp" in pod["metadata"] for pod in namespace.all_pods("serve"))


def _is_ready(pod: JsonObject) -> bool:
    return objects.is_true(pod, "Ready")


def _variables(pod: JsonObject) -> dict[str, str]:
    env = pod["spec"]["containers"][0].get("env", [])
    return {one["name"]: one.get("value", "") for one in env if not one["name"].startswith("GPUFLEET_")}
