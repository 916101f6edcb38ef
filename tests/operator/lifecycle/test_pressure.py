"""A shared device runs out of memory: one pod moves, on a cluster in memory."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpufleet_operator.decide.pressure.observe import PRESSURE_SAMPLES
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.hypothesis_profiles import histories
from gpufleet_testing.operator.cluster import DEVICE_MEMORY_MIB, FakeCluster, claimed_devices
from gpufleet_testing.operator.process import OperatorProcess, moment

LIMITS = Limits(pressure_sample_interval=timedelta(seconds=1))
MOVE = {"onPressure": "Move"}


@dataclass(frozen=True, slots=True)
class Sharer:
    """A workload with a share of a device."""

    promised_mib: int
    uses_mib: int
    placement: Mapping[str, Any]


GREEDY = Sharer(400, 700, MOVE)
MODEST = Sharer(400, 290, {})


async def full_device(
    sharers: Mapping[str, Sharer], *, nodes: int = 2, limits: Limits = LIMITS, checked: bool = True, dra: int = 0
) -> tuple[FakeCluster, OperatorProcess]:
    """Returns a cluster whose nodes have a device each; all sharers are on one, and use as much as promised so far."""
    cluster = FakeCluster(nodes, 1, dra=dra)
    operator = OperatorProcess(cluster, limits, checked=checked)
    for name, one in sharers.items():
        devices = {"mode": "Shared", "memoryMiB": one.promised_mib}
        cluster.submit(name, devices=devices, placement={"strategy": "Pack", **one.placement})
    for _ in range(4):
        await moment(cluster, operator)
    assert len(set(devices_of(cluster).values())) == 1
    cluster.uses = {name: one.uses_mib for name, one in sharers.items()}
    return cluster, operator


def devices_of(cluster: FakeCluster) -> dict[str, str]:
    """Returns the device of each workload."""
    return {assignment["workload"]: assignment["devices"][0] for _, assignment in cluster.ledger()}


def uids(cluster: FakeCluster) -> dict[str, str]:
    return {p["metadata"]["ownerReferences"][0]["name"]: p["metadata"]["uid"] for p in cluster.of("pods")}


def events(cluster: FakeCluster, reason: str) -> list[str]:
    return [event.partition(": ")[2] for event in cluster.events if event.startswith(f"{reason}: ")]


async def run(cluster: FakeCluster, operator: OperatorProcess, seconds: int) -> None:
    for _ in range(seconds):
        await moment(cluster, operator)


async def test_pod_that_uses_more_than_promised_moves() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST})
    before, devices = uids(cluster), devices_of(cluster)

    await run(cluster, operator, 16)

    after = devices_of(cluster)
    assert uids(cluster)["modest"] == before["modest"]
    assert uids(cluster)["greedy"] != before["greedy"]
    assert after["modest"] == devices["modest"]
    assert after["greedy"] != devices["greedy"]
    assert {a["podUID"] for _, a in cluster.ledger()} == set(uids(cluster).values())
    source, target = (
        f"{uuid.removeprefix('GPU-').rpartition('-')[0]}/{uuid}" for uuid in (devices["greedy"], after["greedy"])
    )
    words = f"moved from {source} at 99.0 % to {target}: uses 0.7 GiB of 0.4 promised"
    (moved,) = events(cluster, "Moved")
    assert moved.endswith(words)
    (told,) = events(cluster, "NeighborMoved")
    assert told.endswith(f"of GPUWorkload greedy was {words}")
    assert cluster.collisions == []


async def test_pod_with_a_claim_moves_to_a_device_of_another_claim() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST}, dra=2)
    before, devices = uids(cluster), devices_of(cluster)

    await run(cluster, operator, 16)

    after = devices_of(cluster)
    assert uids(cluster)["modest"] == before["modest"]
    assert uids(cluster)["greedy"] != before["greedy"]
    assert after["modest"] == devices["modest"]
    claims = {claim["metadata"]["ownerReferences"][0]["uid"]: claim for claim in cluster.of("claims")}
    assert claims.keys() == set(uids(cluster).values())
    assert claimed_devices(claims[uids(cluster)["greedy"]]) == [(after["greedy"], GREEDY.promised_mib)]
    assert after["greedy"] != devices["greedy"]
    (moved,) = events(cluster, "Moved")
    assert moved.endswith("uses 0.7 GiB of 0.4 promised")
    assert cluster.collisions == []


@pytest.mark.parametrize(
    ("replicas", "placement", "why"),
    [
        pytest.param(2, {"gang": True}, "a gang is never moved in part", id="gang"),
        pytest.param(2, {"topology": "SameNode"}, "topology SameNode", id="same node"),
        pytest.param(1, {"gang": True}, "", id="a gang of one"),
    ],
)
async def test_replicas_that_belong_together_are_not_moved_and_the_status_says_why(
    replicas: int, placement: Mapping[str, Any], why: str
) -> None:
    cluster = FakeCluster(2, replicas)
    operator = OperatorProcess(cluster, LIMITS)
    devices = {"mode": "Shared", "memoryMiB": 600}
    cluster.submit("together", replicas=replicas, devices=devices, placement={**MOVE, **placement})
    await run(cluster, operator, 4)
    beside = devices_of(cluster)["together"]
    cluster.submit("modest", devices={**devices, "memoryMiB": 290}, requirements={"includeUUIDs": [beside]})
    await run(cluster, operator, 4)
    before = {pod["metadata"]["uid"] for pod in cluster.of("pods")}
    assert len(before) == replicas + 1
    cluster.uses = {"together": 700, "modest": 290}

    await run(cluster, operator, 16)

    conditions = cluster.objects["workloads", "ml/together"]["status"]["conditions"]
    (placed,) = (one for one in conditions if one["type"] == "Placed")
    assert (f"; not moved from full devices: {why}" in placed["message"]) == bool(why)
    assert ({pod["metadata"]["uid"] for pod in cluster.of("pods")} == before) == bool(why)
    assert len(events(cluster, "Moved")) == (0 if why else 1)


@pytest.mark.parametrize("dra", [0, 2])
async def test_pod_with_several_devices_moves_once_though_each_is_full(dra: int) -> None:
    cluster = FakeCluster(2, 2, dra=dra)
    operator = OperatorProcess(cluster, LIMITS)
    for name, promised in {"greedy": 400, "modest": 300}.items():
        devices = {"mode": "Shared", "memoryMiB": promised, "count": 2}
        cluster.submit(name, devices=devices, placement={"strategy": "Pack", **(MOVE if name == "greedy" else {})})
    await run(cluster, operator, 4)
    reserved = {assignment["workload"]: set(assignment["devices"]) for _, assignment in cluster.ledger()}
    assert reserved["greedy"] == reserved["modest"]
    before = uids(cluster)
    cluster.uses = {"greedy": 700, "modest": 290}

    await run(cluster, operator, 16)

    after = {assignment["workload"]: set(assignment["devices"]) for _, assignment in cluster.ledger()}
    assert uids(cluster)["modest"] == before["modest"]
    assert uids(cluster)["greedy"] != before["greedy"]
    assert after["modest"] == reserved["modest"]
    assert len(after["greedy"]) == 2
    assert not after["greedy"] & reserved["greedy"]
    (moved,) = events(cluster, "Moved")
    assert moved.endswith(" and 1 more: uses 0.7 GiB of 0.4 promised")
    assert cluster.collisions == []


async def test_pod_with_several_devices_stays_where_one_of_them_finds_no_room() -> None:
    """The other node has room for what is used of one device, and not of the other."""
    cluster = FakeCluster(2, 2)
    operator = OperatorProcess(cluster, LIMITS)
    shared = {"mode": "Shared", "memoryMiB": 400}
    cluster.submit("greedy", devices={**shared, "count": 2}, placement=MOVE)
    await run(cluster, operator, 4)
    (held,) = (assignment["devices"] for _, assignment in cluster.ledger())
    other = next(node for node in cluster.kubelets if held[0] not in cluster.devices(node))
    cluster.submit("modest", devices={**shared, "memoryMiB": 290}, requirements={"includeUUIDs": [held[0]]})
    cluster.submit("full", devices=shared, requirements={"includeUUIDs": [cluster.devices(other)[0]]})
    await run(cluster, operator, 4)
    before = uids(cluster)
    cluster.uses = {"greedy": 700, "modest": 290, "full": 400}

    await run(cluster, operator, 16)

    assert uids(cluster) == before
    assert events(cluster, "Moved") == []


async def test_pod_moves_only_to_devices_that_its_workload_lists() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST}, nodes=3)
    source = devices_of(cluster)["greedy"]
    unwanted, wanted = sorted({uuid for node in cluster.kubelets for uuid in cluster.devices(node)} - {source})
    cluster.edit("greedy", requirements={"includeUUIDs": [source, wanted]})

    await run(cluster, operator, 12)

    assert devices_of(cluster)["greedy"] == wanted != unwanted


@pytest.mark.parametrize(
    "greedy",
    [
        pytest.param(replace(GREEDY, placement={}), id="it is not asked to move"),
        pytest.param(replace(GREEDY, promised_mib=590, uses_mib=590), id="within its promise, which it keeps"),
    ],
)
async def test_nothing_moves_without_consent(greedy: Sharer) -> None:
    cluster, operator = await full_device({"greedy": greedy, "modest": Sharer(400, 400, {})})
    before = uids(cluster)

    await run(cluster, operator, 12)

    assert uids(cluster) == before
    assert events(cluster, "Moved") == []


async def test_pod_within_its_promise_moves_if_it_shares_its_promise() -> None:
    sharing = Sharer(590, 590, {**MOVE, "reclaim": "Used"})
    cluster, operator = await full_device({"sharing": sharing, "modest": Sharer(400, 400, {})})
    before = uids(cluster)

    await run(cluster, operator, 16)

    assert uids(cluster)["modest"] == before["modest"]
    assert len(events(cluster, "Moved")) == 1


async def test_pod_that_exceeds_its_promise_moves_before_one_that_shares_it() -> None:
    sharing = Sharer(500, 495, {**MOVE, "reclaim": "Used"})
    cluster, operator = await full_device({"sharing": sharing, "over": Sharer(400, 495, MOVE)})
    before = uids(cluster)

    await run(cluster, operator, 16)

    assert uids(cluster)["sharing"] == before["sharing"]
    assert uids(cluster)["over"] != before["over"]


async def test_moved_pod_rests_before_it_moves_again() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST}, nodes=3)
    await run(cluster, operator, 16)
    reached = devices_of(cluster)["greedy"]
    shared = {"mode": "Shared", "memoryMiB": 290}
    cluster.submit("next", devices=shared, requirements={"includeUUIDs": [reached]})
    cluster.uses["next"] = 290

    await run(cluster, operator, 16)

    assert devices_of(cluster)["greedy"] == devices_of(cluster)["next"] == reached
    for _ in range(20):
        cluster.advance(LIMITS.replica_rest.total_seconds() / 20)
        await run(cluster, operator, 1)
    await run(cluster, operator, 16)
    assert devices_of(cluster)["greedy"] != reached


async def test_fewer_samples_in_a_row_move_nothing() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST})
    for _ in range(3):
        cluster.uses["greedy"] = GREEDY.uses_mib
        await run(cluster, operator, PRESSURE_SAMPLES - 1)
        cluster.uses["greedy"] = GREEDY.promised_mib
        await run(cluster, operator, 1)

    assert events(cluster, "Moved") == []


async def test_budget_holds_a_pod_until_its_place_is_given_up() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST})
    before = uids(cluster)
    cluster.disruptions_allowed = 0

    await run(cluster, operator, 10)

    assert len([1 for _, a in cluster.ledger() if a["workload"] == "greedy"]) == 2, "the place is not reserved"
    assert events(cluster, "EvictionBlocked")
    cluster.uses["greedy"] = GREEDY.promised_mib
    cluster.advance(LIMITS.successor_limit.total_seconds())
    await run(cluster, operator, 3)
    assert len(list(cluster.ledger())) == 2
    assert uids(cluster) == before


async def test_nothing_moves_where_no_device_has_room() -> None:
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST}, nodes=1)
    before = uids(cluster)

    await run(cluster, operator, 12)

    assert uids(cluster) == before
    assert events(cluster, "Moved") == []


async def test_limit_of_an_hour_holds_pods() -> None:
    limits = replace(LIMITS, max_moves_per_hour=0)
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST}, limits=limits)

    await run(cluster, operator, 12)

    assert events(cluster, "Moved") == []


async def test_move_continues_after_restarts_of_the_operator() -> None:
    """The place is reserved and the pod not evicted yet; then each pass is that of a new process."""
    cluster, operator = await full_device({"greedy": GREEDY, "modest": MODEST})
    source, allowed = devices_of(cluster)["greedy"], cluster.disruptions_allowed
    cluster.disruptions_allowed = 0
    await run(cluster, operator, PRESSURE_SAMPLES + 2)
    places = [a for _, a in cluster.ledger() if a.get("movedFrom")]
    cluster.disruptions_allowed = allowed

    for _ in range(8):
        await run(cluster, OperatorProcess(cluster, LIMITS), 1)
    await run(cluster, OperatorProcess(cluster, LIMITS), 8)

    assert len(places) == 1
    assert devices_of(cluster)["greedy"] == places[0]["devices"][0] != source
    assert {a["podUID"] for _, a in cluster.ledger()} == set(uids(cluster).values())
    assert cluster.collisions == []


@pytest.mark.histories
@settings(max_examples=histories(8))
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 9)), min_size=2, max_size=7))
@example([(4, 1), (6, 9), (1, 5), (1, 5)])
async def test_devices_do_not_swap_their_pods(sharers: list[tuple[int, int]]) -> None:
    """Any promises and any steady use: each pod moves at most once, and only to where there is room."""
    limits = replace(LIMITS, device_rest=timedelta(seconds=2))
    cluster = FakeCluster(3, 1)
    operator = OperatorProcess(cluster, limits)
    for number, (promised, _) in enumerate(sharers):
        devices = {"mode": "Shared", "memoryMiB": promised * 100}
        cluster.submit(f"w{number}", devices=devices, placement={"strategy": "Pack", **MOVE})
    await run(cluster, operator, 5)
    cluster.uses = {f"w{number}": uses * 100 for number, (_, uses) in enumerate(sharers)}

    latest = _held(cluster)
    for _ in range(30):
        used = _used(cluster)
        await run(cluster, operator, 1)
        held = _held(cluster)
        for name, device in held.items():
            if device != latest.get(name, device):
                assert used.get(device, 0) + cluster.uses[name] <= DEVICE_MEMORY_MIB
        latest |= held

    moved = [event.split()[2] for event in events(cluster, "Moved")]
    assert len({pod.rpartition("-")[0] for pod in moved}) == len(moved)
    assert cluster.collisions == []


def _held(cluster: FakeCluster) -> dict[str, str]:
    """Returns the device of each workload's container: while a pod moves, its workload has two reservations."""
    return dict(_holdings(cluster))


def _used(cluster: FakeCluster) -> Counter[str]:
    """Returns what the containers on each device use."""
    found: Counter[str] = Counter()
    for name, uuid in _holdings(cluster):
        found[uuid] += cluster.uses[name]
    return found


def _holdings(cluster: FakeCluster) -> Iterator[tuple[str, str]]:
    """Yields each container's workload, and its device."""
    names = {uid: name for name, uid in uids(cluster).items()}
    for node in cluster.kubelets:
        for uuid in cluster.devices(node):
            yield from ((names[uid], uuid) for uid in cluster.holders(node, uuid).values() if uid in names)
