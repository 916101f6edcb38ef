"""Shared devices run out of memory: one pod is moved where its workload agrees, and nothing else."""

from gpufleet_e2e.faults.full_devices import MOVED_SECONDS, OVER, Crowd, Pair
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import FREE_SECONDS, TestNamespace

SPARE = 2
"""Devices that only the moved pods get."""

GREEDY = Pair("greedy", 20_000, {"onPressure": "Move"})
IGNORES = Pair("ignores", 20_000, {"onPressure": "Ignore"})
KEEPS = Pair("keeps", OVER, {"onPressure": "Move", "reclaim": "Never"})
HELD = Pair("held", 20_000, {"onPressure": "Move"})
PAIRS = (GREEDY, IGNORES, KEEPS, HELD)
SWAPPING = (Pair("left", 20_000, {"onPressure": "Move"}), Pair("right", 20_000, {"onPressure": "Move"}))


def test_only_the_pod_that_exceeds_its_promise_and_agrees_moves(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: processes by container, samples in a row, a reserved place, the eviction API.

    Four devices are filled at the same time by two holders each. One holder agreed to move and exceeds its promise; one
    exceeds it and did not agree; one uses what it was promised; one is protected by a PodDisruptionBudget.
    """
    crowd = Crowd(namespace, fleet, PAIRS, spare=SPARE)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "held"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
    }
    fleet.api.create(f"/apis/policy/v1/namespaces/{namespace.name}/poddisruptionbudgets", budget)
    before = crowd.identities()

    crowd.fill()
    message = namespace.event("greedy", "Moved", within=MOVED_SECONDS)
    source, target = crowd.devices["greedy"], namespace.devices("greedy")
    assert target in {(uuid,) for uuid in crowd.spare}, target
    assert f"moved from {crowd.node}/{source} at 99.9 % to {crowd.node}/{target[0]}" in message
    assert "uses 41.0 GiB of 19.5 promised" in message
    assert message.endswith(namespace.event("greedy-quiet", "NeighborMoved").partition("moved from ")[2])
    print(namespace.event("held", "EvictionBlocked"))

    after = crowd.identities()
    assert {name for name in before if after[name] != before[name]} == {"greedy"}
    assert eventually(lambda: namespace.reservation("greedy"), within=FREE_SECONDS)["movedFrom"]["device"] == source
    namespace.verify("greedy", *(name for pair in PAIRS for name in pair.names if pair is not HELD))


def test_full_devices_do_not_swap_their_pods(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a place with room is reserved before a pod is evicted, and each device is the other's only place.

    Two devices are filled at the same time, by a holder each that exceeds its promise and agreed to move.
    """
    crowd = Crowd(namespace, fleet, SWAPPING, spare=0, first=len(PAIRS) + SPARE)
    before, rejected = crowd.identities(), _moves_without_room(fleet)

    crowd.fill()
    eventually(lambda: _are_tried(fleet, rejected + len(SWAPPING)), within=MOVED_SECONDS)
    assert crowd.identities() == before
    reserved = fleet.assignments(namespace.name).values()
    assert sorted(one["workload"] for one in reserved) == sorted(crowd.devices), "a place for another pod"
    namespace.verify(*crowd.devices)


def _are_tried(fleet: Fleet, moves: float) -> None:
    """Asserts that so many attempts to relieve a device found no room."""
    found = _moves_without_room(fleet)
    assert found >= moves, f"{found} attempts, not {moves}"


def _moves_without_room(fleet: Fleet) -> float:
    return fleet.operator_metric("gpufleet_operator_moves_rejected_total", reason="NoRoom")
