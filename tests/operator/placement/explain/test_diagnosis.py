"""Which of several failed tests is reported, and which miss counts as the nearest."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.explain.diagnosis import rejections_by_node
from gpufleet_operator.placement.model import (
    DeviceNeeds,
    DeviceState,
    Diagnosis,
    FilterReason,
    NodeState,
    PodNeeds,
    Request,
    Share,
)
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import generators
from gpufleet_testing.placement.builders import DeviceFields, RequestFields, make_device, make_node, make_request

GPU = "gpufleet.dev/gpu"


def device(uuid: str, index: int, *, healthy: bool = True) -> DeviceState:
    return DeviceState(uuid, index, "M", 80_000, 0, 0, 40, healthy=healthy, sample_age_seconds=1.0)


def diagnosis(nodes: list[NodeState], needs: DeviceNeeds, pod: PodNeeds | None = None) -> Diagnosis:
    fleet = Fleet()
    for node in nodes:
        fleet.put(node)
    decision = place(fleet, Request("ml/train", replicas=(0,), devices=needs, pod=pod or PodNeeds()))
    assert decision.diagnosis is not None
    return decision.diagnosis


def test_too_few_devices_take_precedence_over_a_missing_resource() -> None:
    devices = tuple(device(f"GPU-{index}", index) for index in range(8))
    node = NodeState("node-1", devices, free_pods=10, free_extended={GPU: 8})
    told = diagnosis([node], DeviceNeeds(count=16), PodNeeds(extended={GPU: 16}))
    assert [(one.reason, one.devices) for one in told.rejected] == [(FilterReason.INSUFFICIENT_DEVICES, 8)]
    assert told.nearest is not None
    assert "8" in told.nearest.message
    assert "16" in told.nearest.message


@pytest.mark.parametrize(
    "needs",
    [DeviceNeeds(include_uuids=frozenset({"GPU-2"})), DeviceNeeds(exclude_uuids=frozenset({"GPU-0", "GPU-1"}))],
    ids=["included", "not excluded"],
)
def test_nearest_device_is_one_that_the_uuids_allow(needs: DeviceNeeds) -> None:
    busy = [replace(device(f"GPU-{index}", index), held=True) for index in range(2)]
    told = diagnosis([NodeState("node-1", (*busy, device("GPU-2", 2, healthy=False)), free_pods=10)], needs)
    assert told.nearest is not None
    assert told.nearest.device == "GPU-2"


def test_missing_resource_is_reported_if_devices_suffice() -> None:
    devices = tuple(device(f"GPU-{index}", index) for index in range(2))
    node = NodeState("node-1", devices, free_pods=10, free_extended={GPU: 1})
    told = diagnosis([node], DeviceNeeds(count=2), PodNeeds(extended={GPU: 2}))
    assert [(one.reason, one.devices) for one in told.rejected] == [(FilterReason.INSUFFICIENT_EXTENDED_RESOURCE, 2)]
    assert f"0/2 GPUs are available: 2 insufficient {GPU} on the node" in told.message


def test_only_the_resources_that_a_node_lacks_are_named() -> None:
    node = NodeState("node-1", (device("GPU-0", 0),), free_pods=10, free_extended={GPU: 8, "acme.dev/nic": 0})
    told = diagnosis([node], DeviceNeeds(), PodNeeds(extended={GPU: 1, "acme.dev/nic": 1, "acme.dev/fpga": 2}))
    assert "1 insufficient acme.dev/fpga or acme.dev/nic on the node" in told.message


def test_temporary_fault_is_closer_than_an_excluded_device() -> None:
    devices = (device("GPU-0", 0), device("GPU-1", 1, healthy=False))
    node = NodeState("node-1", devices, free_pods=10)
    told = diagnosis([node], DeviceNeeds(include_uuids=frozenset({"GPU-1"})))
    assert told.nearest is not None
    assert (told.nearest.device, told.nearest.reason) == ("GPU-1", FilterReason.UNHEALTHY)


def test_nearest_miss_has_number_and_amount() -> None:
    needs: RequestFields = {"min_free_memory_mib": 40_000}
    alike = make_node("node-2", [make_device(f"GPU-{i}", i, memory_used_mib=42_148) for i in range(3)])
    told = place(Fleet.of([alike]), make_request(**needs)).diagnosis
    assert told is not None
    assert told.message.endswith(
        "3 GPUs lack 2,148 MiB of free memory; closest is node-2/GPU-0 (needs 40,000 MiB, has 37,852 MiB)."
    )
    worse = make_node("node-1", [make_device("GPU-9", 0, memory_used_mib=80_000)])
    told = place(Fleet.of([alike, worse]), make_request(**needs)).diagnosis
    assert told is not None
    assert "4 GPUs lack 2,148 MiB of free memory or more; closest is node-2/GPU-0 (" in told.message
    one = make_node("a", [make_device("GPU-x", 0, sharers=1, promised_compute_percent=60)])
    told = place(Fleet.of([one]), make_request(share=Share(0, 50))).diagnosis
    assert told is not None
    assert told.message.endswith("1 GPU lacks 10 % of compute; closest is a/GPU-x (needs 50 %, has 40 %).")


def test_closest_overcommitted_device_lacks_the_least() -> None:
    """Over-committed: what is free is below zero, by much or by little."""
    over = [make_device(f"GPU-{i}", i, sharers=1, promised_memory_mib=used) for i, used in enumerate((95_000, 90_000))]
    told = place(Fleet.of([make_node("a", over)]), make_request(share=Share(1_000, 0))).diagnosis
    assert told is not None
    assert "2 GPUs lack 11,000 MiB of free memory or more; closest is a/GPU-1 (" in told.message


def test_what_the_other_replicas_took_is_part_of_the_reason() -> None:
    cpu = place(
        Fleet.of([make_node("a", 8, free_cpu_milli=4_000)]), make_request(replicas=3, cpu_milli=2_000)
    ).diagnosis
    assert cpu is not None
    assert {r.reason: r.devices for r in cpu.rejected} == {FilterReason.IN_USE: 2, FilterReason.INSUFFICIENT_CPU: 6}
    assert cpu.eligible == 0
    shares = place(Fleet.of([make_node("a", 1)]), make_request(replicas=3, share=Share(40_000, 0))).diagnosis
    assert shares is not None
    assert [(r.reason, r.devices) for r in shares.rejected] == [(FilterReason.INSUFFICIENT_FREE_MEMORY, 1)]


def test_old_and_missing_samples_are_distinguished() -> None:
    old = make_device("GPU-0", 0, sample_age_seconds=370.0, stale_reason="has no sample of the last 90 s")
    for device, words in (
        (old, "has no sample of the last 90 s"),
        (make_device(sample_age_seconds=None), "never been"),
    ):
        told = place(Fleet.of([make_node("a", [device])]), make_request()).diagnosis
        assert told is not None
        assert told.nearest is not None
        assert told.nearest.reason is FilterReason.TELEMETRY_STALE
        assert words in told.nearest.message


def test_an_included_device_that_is_not_in_the_fleet_is_named() -> None:
    fleet = Fleet.of([make_node("a", [make_device("GPU-a", 0, healthy=False)])])
    told = place(fleet, make_request(include_uuids=frozenset({"GPU-a", "GPU-gone"}))).diagnosis
    assert told is not None
    assert "GPU-gone of includeUUIDs is not in the fleet" in told.message
    told = place(fleet, make_request(include_uuids=frozenset({"GPU-y", "GPU-x", "GPU-z"}))).diagnosis
    assert told is not None
    assert "GPU-x and 2 more of includeUUIDs are not in the fleet" in told.message


@examples(30)
@given(data=st.data())
def test_the_counts_of_the_nodes_add_up_to_those_of_the_fleet(data: st.DataObject) -> None:
    fleet, request = Fleet.of(data.draw(generators.fleets())), replace(data.draw(generators.requests()), gang=False)
    decision = place(fleet, request)
    if decision.diagnosis is None:
        return
    for pick in decision.picks:
        fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
    found = rejections_by_node(fleet, request, decision.unplaced[0])
    assert list(found) == sorted(name for name, node in fleet.nodes.items() if node.devices)
    devices: Counter[FilterReason] = Counter()
    nodes: Counter[FilterReason] = Counter()
    for counts in found.values():
        devices.update({r.reason: r.devices for r in counts})
        nodes.update(r.reason for r in counts)
    assert {r.reason: (r.devices, r.nodes) for r in decision.diagnosis.rejected} == {
        reason: (devices[reason], nodes[reason]) for reason in devices
    }


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"process_count": 1}, "runs 1 process outside Kubernetes"),
        ({"process_count": 2}, "runs 2 processes outside Kubernetes"),
        (
            {"process_count": None, "memory_used_mib": 9_000},
            "process count unknown, 9,000 MiB in use (idle: at most 512 MiB): possibly used outside Kubernetes",
        ),
        (
            {"process_count": None, "memory_used_mib": None},
            "process count and memory unknown: possibly used outside Kubernetes",
        ),
    ],
)
def test_device_that_may_be_in_use_has_the_evidence_in_its_message(device: DeviceFields, words: str) -> None:
    told = place(Fleet.of([make_node("a", [make_device(**device)])]), make_request()).diagnosis
    assert told is not None
    assert told.nearest is not None
    assert (told.nearest.reason, told.nearest.message) == (FilterReason.FOREIGN_PROCESS, words)
    assert "1 used (or possibly used) outside Kubernetes" in told.message
