"""Which of several failed tests is reported, and which miss counts as the nearest."""

from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import (
    DeviceNeeds,
    DeviceState,
    NodeState,
    PodNeeds,
    Reason,
    Request,
    WhyNot,
)

GPU = "gpufleet.dev/gpu"


def device(uuid: str, index: int, *, healthy: bool = True) -> DeviceState:
    return DeviceState(uuid, index, "M", 80_000, 0, 0, 40, healthy=healthy, sample_age_seconds=1.0)


def why_not(nodes: list[NodeState], needs: DeviceNeeds, pod: PodNeeds | None = None) -> WhyNot:
    fleet = Fleet()
    for node in nodes:
        fleet.put(node)
    decision = place(fleet, Request("ml/train", replicas=(0,), devices=needs, pod=pod or PodNeeds()))
    assert decision.why_not is not None
    return decision.why_not


def test_a_node_with_too_few_devices_is_told_as_that_although_it_lacks_the_resource_as_well() -> None:
    devices = tuple(device(f"GPU-{index}", index) for index in range(8))
    node = NodeState("node-1", devices, free_pods=10, free_extended={GPU: 8})
    told = why_not([node], DeviceNeeds(count=16), PodNeeds(extended={GPU: 16}))
    assert [(one.reason, one.devices) for one in told.rejected] == [(Reason.NODE_DEVICES, 8)]
    assert told.nearest is not None
    assert "8" in told.nearest.message
    assert "16" in told.nearest.message


def test_enough_devices_without_the_resource_is_told_as_a_lack_of_the_resource() -> None:
    devices = tuple(device(f"GPU-{index}", index) for index in range(2))
    node = NodeState("node-1", devices, free_pods=10, free_extended={GPU: 1})
    told = why_not([node], DeviceNeeds(count=2), PodNeeds(extended={GPU: 2}))
    assert [(one.reason, one.devices) for one in told.rejected] == [(Reason.NODE_RESOURCE, 2)]


def test_a_fault_that_may_pass_is_nearer_than_a_device_that_was_not_asked_for() -> None:
    devices = (device("GPU-0", 0), device("GPU-1", 1, healthy=False))
    node = NodeState("node-1", devices, free_pods=10)
    told = why_not([node], DeviceNeeds(include_uuids=frozenset({"GPU-1"})))
    assert told.nearest is not None
    assert (told.nearest.device, told.nearest.reason) == ("GPU-1", Reason.UNHEALTHY)
