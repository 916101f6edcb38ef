"""The kubelet's request to a device plugin names no pod. Each pod must get its own devices all the same."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from gpufleet_e2e.proof import Source
from gpufleet_e2e.proof.api_reader import conditions_in_words
from gpufleet_e2e.support.api import JsonObject
from gpufleet_e2e.support.fault_injection import HELD, held
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import Room

ROUNDS = 10


def test_two_workloads_in_the_same_second(room: Room, fleet: Fleet) -> None:
    """Mechanism: the agent asks the kubelet who is under admission (PodResources List in GetPreferredAllocation).

    Two workloads of equal size are created at once, picked on one node within a second, and each one's container has
    its own devices by every source. Repeated; the pods of a round are still on their way out while the next begins.
    A busy machine may put more than a second between the two picks of a round, which then proves less: not of most.
    """
    node = fleet.nodes[0]
    apart = []
    for number in range(ROUNDS):
        names = (f"left-{number}", f"right-{number}")
        _at_once(room, [gpuworkload(name, count=2, node=node) for name in names])
        evidence = room.proven(*names)
        picked = [set(evidence[name].replicas[0].picked) for name in names]
        assert not picked[0] & picked[1]
        decided = [datetime.fromisoformat(room.reserved(name)["decidedAt"]) for name in names]
        apart.append(abs(decided[0] - decided[1]))
        room.delete(*names)
    assert sorted(apart)[ROUNDS // 2] < timedelta(seconds=1), f"not picked in the same second: {apart}"


def test_the_later_pod_comes_first(room: Room, fleet: Fleet) -> None:
    """Mechanism: as above, in the order that a guess by size and age gets wrong.

    The first workload is reserved and held back; the second one, of equal size on the same node, overtakes it.
    """
    first, second = _overtaken(room, fleet, lambda: room.wait_ready("second"))
    evidence = room.proven("first", "second")
    assert evidence["first"].replicas[0].picked == first, "the devices that were reserved first are the ones it got"
    assert evidence["second"].replicas[0].picked == second


@pytest.fixture
def guessing(fleet: Fleet) -> Iterator[None]:
    """Every agent guesses who asks, by size and age, instead of asking the kubelet."""
    fleet.install(agent_args=["--handover=first-fit"])
    yield
    fleet.install()


def test_without_the_mechanism_it_is_wrong_and_seen(room: Room, fleet: Fleet, guessing: None) -> None:
    """The counter-proof: the same order with the mechanism switched off gives the second pod the first one's devices.

    The operator sees it (Mismatch), says so with both sets of devices, and replaces the pod.
    """
    told: list[str] = []
    first, _ = _overtaken(
        room, fleet, lambda: told.append(eventually(lambda: room.event("second", "DeviceMismatch"), within=30))
    )
    holds, reserved = told[0].split("; reserved: ")
    assert all(uuid in holds for uuid in first), f"it should hold the first one's devices {first}: {told[0]}"
    assert not any(uuid in reserved for uuid in first), told[0]


def test_sixteen_pods_at_once_on_one_node(room: Room, fleet: Fleet) -> None:
    """Mechanism: hand-over under a burst. Sixteen workloads fill the node at once; each pod has its own device."""
    names = [f"burst-{number}" for number in range(16)]
    _at_once(room, [gpuworkload(name, node=fleet.nodes[0]) for name in names])
    evidence = room.proven(*names, within=90)
    picked = {uuid for one in evidence.values() for uuid in one.replicas[0].picked}
    assert picked == set(fleet.gpus[fleet.nodes[0]].uuids)
    assert all(one.replicas[0].says[Source.ENVIRONMENT].devices for one in evidence.values())


def _overtaken(room: Room, fleet: Fleet, watch: Callable[[], None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reserve for `first`, hold it, let `second` go, call `watch`, and let `first` go; returns what was reserved."""
    node = fleet.nodes[1]
    with held(fleet.api, room.namespace):
        room.apply(gpuworkload("first", count=2, node=node, labels=HELD))
        first = eventually(lambda: _devices(room.reserved("first")), within=15)
        room.apply(gpuworkload("second", count=2, node=node))
        second = eventually(lambda: _devices(room.reserved("second")), within=15)
        watch()
        gates = room.pod("first")["spec"].get("schedulingGates")
        assert gates, f"the first pod was let go: {conditions_in_words(room.workload('first'))}"
    return first, second


def _devices(assignment: JsonObject) -> tuple[str, ...]:
    return tuple(sorted(assignment["devices"]))


def _at_once(room: Room, manifests: list[JsonObject]) -> None:
    with ThreadPoolExecutor(len(manifests)) as pool:
        list(pool.map(room.apply, manifests))
