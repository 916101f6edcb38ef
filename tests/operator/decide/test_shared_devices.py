"""Decisions on workloads with shared devices."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpufleet_api.names import DRA_DRIVER, RESOURCE, SHARED_RESOURCE, Reclaim, Transport
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_common import timestamps
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.actions import Actions
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.state_types import Limits
from gpufleet_operator.placement.model import PodNeeds
from gpufleet_testing.operator import make, results
from gpufleet_testing.operator.dra import claims
from gpufleet_testing.operator.fields import AssignmentFields, WorkloadSpecFields
from gpufleet_testing.operator.make import HolderMemory, reclaimable, using

TOTAL = 81559
SLOT = PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={SHARED_RESOURCE: 1})


def shared(memory: int = 20_000, compute: int | None = None, count: int = 1) -> dict[str, Any]:
    return {"count": count, "mode": "Shared", "memoryMiB": memory, "computePercent": compute}


def part(pod: Pod, *devices: str, memory: int = 20_000, decided_at: str | None = None) -> Assignment:
    fields: AssignmentFields = {"memory_mib": memory, "resource": SHARED_RESOURCE}
    if decided_at is not None:
        fields["decided_at"] = decided_at
    return make.assignment(pod, *devices, workload=pod.name[:-4], **fields)


def assigned(actions: Actions) -> list[Assignment]:
    return [a for r in actions.reserves for a in r.assignments]


def test_shared_reservation_has_its_promise() -> None:
    workload = make.workload(devices=shared(20_000, 25))

    actions = decide(make.snapshot(workload, make.pod(workload, needs=SLOT), make.telemetry()))

    (a,) = assigned(actions)
    assert (a.resource, a.memory_mib, a.compute_percent, len(a.devices)) == (SHARED_RESOURCE, 20_000, 25, 1)
    (release,) = actions.releases
    assert '\\"memoryMiB\\":20000,\\"computePercent\\":25' in str(release.patch).replace('"', '\\"')


def test_pack_fills_a_shared_device() -> None:
    workload = make.workload(replicas=5, devices=shared(20_000), placement={"strategy": "Pack"})
    pods = [make.pod(workload, i, needs=SLOT) for i in range(5)]

    actions = decide(make.snapshot(workload, *pods, make.telemetry()))

    per_device = Counter(uuid for a in assigned(actions) for uuid in a.devices)
    assert sorted(per_device.values()) == [1, 4], "four times 20,000 of 81,559 MiB"


def test_replica_of_two_shared_devices_gets_different_ones() -> None:
    workload = make.workload(devices=shared(count=2))
    needs = PodNeeds(extended={SHARED_RESOURCE: 2})

    (a,) = assigned(decide(make.snapshot(workload, make.pod(workload, needs=needs), make.telemetry())))

    assert sorted(a.devices) == ["GPU-1-0", "GPU-1-1"]


def test_shared_device_is_not_given_as_a_whole() -> None:
    sharer = make.running_pod("s", needs=SLOT, devices=())
    telemetry = make.telemetry(devices=1, assignments=[part(sharer, "GPU-1-0")])

    actions = decide(
        make.snapshot(make.workload("s", devices=shared()), sharer, make.workload(), make.pod(), telemetry)
    )

    assert not actions.reserves
    (why,) = actions.unplaced.values()
    assert [r.reason for r in why.rejected] == ["DeviceInUse"]


def test_whole_device_is_not_shared() -> None:
    owner = make.running_pod("o")
    telemetry = make.telemetry(devices=1, assignments=[make.assignment(owner, workload="o")])
    workload = make.workload(devices=shared(1))

    actions = decide(make.snapshot(make.workload("o"), owner, workload, make.pod(needs=SLOT), telemetry))

    assert not actions.reserves


@pytest.mark.parametrize("stranger", ["slot", "whole"])
def test_unmanaged_pods_occupy_devices_in_the_same_way(stranger: str) -> None:
    pod = make.pod("x", needs=SLOT) if stranger == "slot" else make.pod("x")
    telemetry = make.telemetry(devices=1, held={"GPU-1-0": pod})
    whole, part_ = make.workload("w"), make.workload("p", devices=shared(1))

    exclusive = decide(make.snapshot(whole, make.pod(whole), telemetry))
    sharing = decide(make.snapshot(part_, make.pod(part_, needs=SLOT), telemetry))

    assert not exclusive.reserves
    assert bool(sharing.reserves) == (stranger == "slot")


def test_observed_use_counts_if_it_exceeds_the_promises() -> None:
    """A sharer uses more than its promise: only unused memory is free."""
    sharer = make.running_pod("s", needs=SLOT, devices=())
    workload = make.workload(devices=shared(30_000))
    cluster = (make.workload("s", devices=shared()), sharer, workload, make.pod(needs=SLOT))
    assignments = [part(sharer, "GPU-1-0")]

    roomy = decide(make.snapshot(*cluster, make.telemetry(devices=1, assignments=assignments, memoryUsedMiB=20_500)))
    greedy = decide(make.snapshot(*cluster, make.telemetry(devices=1, assignments=assignments, memoryUsedMiB=60_000)))

    assert roomy.reserves
    assert not greedy.reserves
    (why,) = greedy.unplaced.values()
    assert "InsufficientFreeMemory" in {r.reason for r in why.rejected}


def test_picks_younger_than_the_sample_are_deducted() -> None:
    """A burst between two samples must not go to one device: 40,000 MiB are used, and 20,000 MiB are in flight."""
    sharer = make.released_pod("s", needs=SLOT)
    decided = timestamps.micros(make.NOW - timedelta(seconds=0.5))
    assignments = [part(sharer, "GPU-1-0", decided_at=decided)]
    workload = make.workload(devices=shared(25_000))
    telemetry = make.telemetry(devices=1, assignments=assignments, memoryUsedMiB=40_000, age=1)

    actions = decide(
        make.snapshot(make.workload("s", devices=shared()), sharer, workload, make.pod(needs=SLOT), telemetry)
    )

    assert not actions.reserves, "81,559 - 40,000 - 20,000 is below 25,000"


@pytest.mark.parametrize("by", ["FreeMemory", "TotalMemory"])
def test_items_are_divided_by_promised_memory(by: str) -> None:
    spec: WorkloadSpecFields = {
        "replicas": 2,
        "devices": shared(20_000),
        "placement": {"gang": True, "strategy": "Spread"},
        "distribution": {"items": 1000, "mode": "Proportional", "by": by},
    }
    workload = make.workload(**spec)
    pods = [make.pod(workload, i, needs=SLOT) for i in range(2)]

    actions = decide(
        make.snapshot(
            workload, *pods, make.telemetry(devices=1), make.telemetry("node-2", devices=1, memoryUsedMiB=50_000)
        )
    )

    ranges = sorted((a.shard_start, a.shard_end) for a in assigned(actions))
    assert ranges == [(0, 500), (500, 1000)]


def test_device_has_no_more_sharers_than_slots() -> None:
    workload = make.workload(replicas=6, devices=shared(1), placement={"strategy": "Pack"})
    pods = [make.pod(workload, i, needs=SLOT) for i in range(6)]
    limits = Limits(resources=Resources(slots=2))

    actions = decide(make.snapshot(workload, *pods, make.telemetry(), limits=limits))

    assert max(Counter(uuid for a in assigned(actions) for uuid in a.devices).values()) == 2


class TestProof:
    """The kubelet reports share slots, the agent devices."""

    def judged(self, *devices: str, agent: bool = False) -> Actions:
        pod = make.running_pod(devices=devices, needs=SLOT)
        a = make.assignment(pod, "GPU-1-0", memory_mib=20_000, resource=SHARED_RESOURCE)
        telemetry = make.telemetry(assignments=[a], held={"GPU-1-0": a} if agent else {})
        return decide(make.snapshot(make.workload(devices=shared()), pod, telemetry))

    def test_slot_of_the_reserved_device_is_confirmed(self) -> None:
        assert results.states(self.judged("GPU-1-0")) == ["Allocated"]

    def test_report_of_the_agent_is_enough_on_older_kubelets(self) -> None:
        assert results.states(self.judged(agent=True)) == ["Allocated"]

    def test_slot_of_another_device_is_a_mismatch(self) -> None:
        actions = self.judged("GPU-1-1")

        assert results.states(actions) == ["Mismatch"]
        assert "reserved GPU-1-0, but kubelet reports GPU-1-1" in actions.deletes[0].message


def test_running_sharer_recovers_its_reservation_after_node_recreation() -> None:
    spec: WorkloadSpecFields = {"devices": shared(20_000, 10)}
    pod = make.running_pod(needs=SLOT)
    first = decide(make.snapshot(make.workload(**spec), make.pod(needs=SLOT), make.telemetry(devices=1)))
    status = first.statuses[0].status
    assert [p.pod_uid for p in status.placements] == [pod.uid]

    actions = decide(make.snapshot(make.workload(status=status, **spec), pod, make.telemetry(generation=1)))

    assert not actions.deletes
    (a,) = assigned(actions)
    assert (a.pod_uid, a.devices, a.memory_mib, a.compute_percent) == (pod.uid, ["GPU-1-0"], 20_000, 10)


WISH = st.fixed_dictionaries(
    {
        "devices": st.one_of(
            st.builds(lambda count: {"count": count}, st.integers(1, 2)),
            st.builds(shared, st.integers(1, TOTAL), st.none() | st.integers(1, 100), st.integers(1, 2)),
        ),
        "replicas": st.integers(1, 3),
        "placement": st.fixed_dictionaries(
            {"strategy": st.sampled_from(["Best", "Pack", "Spread"]), "gang": st.booleans()}
        ),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    rounds=st.lists(st.lists(WISH, min_size=1, max_size=3), min_size=1, max_size=3),
    used=st.integers(0, TOTAL),
    age=st.floats(0, 20),
)
def test_promises_never_exceed_a_device_and_its_uses_never_mix(rounds: list[list[Any]], used: int, age: float) -> None:
    """For any use and any age of the samples, in several rounds that each start from the ledger of the previous one."""
    ledger: dict[str, list[Assignment]] = {"node-1": [], "node-2": []}
    objects: list[Workload | Pod] = []
    for number, wishes in enumerate(rounds):
        for index, wish in enumerate(wishes):
            workload = make.workload(f"w{number}-{index}", **wish)
            resource = SHARED_RESOURCE if "mode" in wish["devices"] else RESOURCE
            needs = PodNeeds(extended={resource: wish["devices"]["count"]})
            objects += [workload, *(make.pod(workload, r, needs=needs) for r in range(wish["replicas"]))]
        nodes = [
            make.telemetry(name, assignments=assignments, memoryUsedMiB=used, utilizationPercent=0, age=age)
            for name, assignments in ledger.items()
        ]
        for reserve in decide(make.snapshot(*objects, *nodes)).reserves:
            ledger[reserve.node] = list(reserve.assignments)

        per_device: dict[str, list[Assignment]] = {}
        for a in (a for assignments in ledger.values() for a in assignments):
            assert len(set(a.devices)) == len(a.devices)
            for uuid in a.devices:
                per_device.setdefault(uuid, []).append(a)
        for uuid, found in per_device.items():
            assert len(found) == 1 or all(a.memory_mib is not None for a in found), f"{uuid} is used in both ways"
            assert sum(a.memory_mib or 0 for a in found) <= TOTAL
            assert sum(a.compute_percent or 0 for a in found) <= 100


@pytest.mark.parametrize(
    ("chosen", "default", "expected"),
    [
        (None, Reclaim.NEVER, None),
        (None, Reclaim.USED, Reclaim.USED),
        ("Never", Reclaim.USED, None),
        ("Used", Reclaim.NEVER, Reclaim.USED),
    ],
)
def test_reservation_says_whether_its_promise_may_be_reclaimed(
    chosen: str | None, default: Reclaim, expected: Reclaim | None
) -> None:
    workload = make.workload(devices=shared(), placement={"reclaim": chosen} if chosen else {})
    limits = Limits(default_reclaim=default)

    (a,) = assigned(decide(make.snapshot(workload, make.pod(workload, needs=SLOT), make.telemetry(), limits=limits)))

    assert a.reclaim is expected


@pytest.mark.parametrize(("driver", "expected"), [(DRA_DRIVER, Reclaim.USED), ("gpu.nvidia.com", None)])
def test_claim_of_another_driver_keeps_its_promise(driver: str, expected: Reclaim | None) -> None:
    workload = make.workload(devices=shared(), placement={"reclaim": "Used"})
    node, pod = make.telemetry(transport=Transport.DRA), claims.claiming(make.pod(workload))

    (a,) = assigned(decide(make.snapshot(workload, pod, node, limits=Limits(dra_driver=driver))))

    assert a.reclaim is expected


@pytest.mark.parametrize("strategy", ["Best", "Pack"])
@pytest.mark.parametrize("reclaims", [False, True], ids=["Never", "Used"])
def test_unused_promise_is_given_to_others_only_with_consent(strategy: str, *, reclaims: bool) -> None:
    holder = make.running_pod("s", needs=SLOT)
    promised = part(holder, "GPU-1-0", memory=60_000)
    promised = reclaimable(promised) if reclaims else promised
    telemetry = make.telemetry(devices=1, assignments=[promised], held={"GPU-1-0": [promised]}, memoryUsedMiB=9000)
    telemetry = using(telemetry, {holder.name: HolderMemory(8500)})
    owner = make.workload("s", devices=shared(60_000))
    workload = make.workload(devices=shared(70_000), placement={"strategy": strategy})

    actions = decide(make.snapshot(owner, holder, workload, make.pod(needs=SLOT), telemetry))

    assert [a.memory_mib for a in assigned(actions)] == ([60_000, 70_000] if reclaims else [])


def test_gated_reservation_on_reclaimed_memory_is_kept() -> None:
    holder, waiting = make.running_pod("s", needs=SLOT), make.pod(needs=SLOT)
    stored = [reclaimable(part(holder, "GPU-1-0", memory=60_000)), part(waiting, "GPU-1-0", memory=70_000)]
    telemetry = make.telemetry(devices=1, assignments=stored, held={"GPU-1-0": stored[:1]})
    owner, workload = make.workload("s", devices=shared(60_000)), make.workload(devices=shared(70_000))

    actions = decide(make.snapshot(owner, holder, workload, waiting, telemetry))

    assert [release.pod_uid for release in actions.releases] == [waiting.uid]
