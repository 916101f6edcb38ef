"""Memory that a device can give: without what the driver reserves, and where it is not the device's own."""

import pytest

from gpufleet_api.names import MemoryModel
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.aggregate import aggregate
from gpufleet_operator.placement.model import Decision, DeviceState, FilterReason, Share
from gpufleet_testing.placement.builders import make_device, make_node, make_request

RECORDED = {
    "Tesla T4": (15360, 388, 14972),
    "NVIDIA A10G": (23028, 435, 22593),
    "NVIDIA L40S": (46068, 609, 45459),
    "NVIDIA A100-SXM4-80GB": (81920, 869, 81051),
}
"""Total, reserved, and what can be used."""


def placed(device: DeviceState, *, least: int | None = None, share: int | None = None) -> Decision:
    wanted = None if share is None else Share(share)
    return place(Fleet.of([make_node("a", [device])]), make_request(min_free_memory_mib=least, share=wanted))


@pytest.mark.parametrize(("model", "sizes"), RECORDED.items())
def test_reserved_memory_is_not_free(model: str, sizes: tuple[int, int, int]) -> None:
    total, reserved, usable = sizes
    device = make_device("GPU-0", 0, model=model, memory_total_mib=total, memory_reserved_mib=reserved)
    assert (device.memory_usable_mib, device.memory_free_mib) == (usable, usable)
    assert placed(device, least=usable).picks
    decision = placed(device, least=usable + 1)
    assert not decision.picks
    assert decision.diagnosis is not None
    assert decision.diagnosis.nearest is not None
    assert decision.diagnosis.nearest.reason is FilterReason.INSUFFICIENT_FREE_MEMORY
    assert f"has {usable:,} MiB" in decision.diagnosis.nearest.message


def test_sum_of_shares_fits_into_what_can_be_used() -> None:
    device = make_device("GPU-0", 0, memory_total_mib=46068, memory_reserved_mib=609)
    fleet = Fleet.of([make_node("a", [device])])
    decision = place(fleet, make_request(5, share=Share(15153)))
    assert len(decision.picks) == 3, "3 x 15153 is 45459"
    decision = place(Fleet.of([make_node("a", [device])]), make_request(5, share=Share(15154)))
    assert len(decision.picks) == 2


def test_reserved_memory_is_in_the_total_and_not_available() -> None:
    devices = [make_device(f"GPU-{i}", i, memory_total_mib=1000, memory_reserved_mib=100) for i in range(2)]
    found = aggregate(Fleet.of([make_node("a", devices)]))
    assert (found.memory_total_mib, found.memory_available_mib) == (2000, 1800)


def test_idle_unified_device_without_process_count_is_used_whole() -> None:
    """The memory in use is the machine's."""
    device = make_device(
        "GPU-0", 0, memory_model=MemoryModel.UNIFIED, memory_used_mib=9_000, process_count=None, utilization_percent=0
    )
    assert placed(device).picks
    assert placed(device, least=71_000).picks
    assert not placed(device, least=71_001).picks
    assert placed(device, share=71_000).picks


@pytest.mark.parametrize(("processes", "utilization"), [(1, 0), (None, 5), (None, None)])
def test_unified_device_that_may_run_something_is_not_used(processes: int | None, utilization: int | None) -> None:
    device = make_device(
        "GPU-0", 0, memory_model=MemoryModel.UNIFIED, process_count=processes, utilization_percent=utilization
    )
    decision = placed(device)
    assert not decision.picks
    assert decision.diagnosis is not None
    assert decision.diagnosis.nearest is not None
    assert decision.diagnosis.nearest.reason is FilterReason.FOREIGN_PROCESS


def test_memory_requirement_without_measurement_names_the_hardware() -> None:
    device = make_device("GPU-0", 0, model="Orin (nvgpu)", memory_total_mib=None, memory_used_mib=None)
    decision = placed(device, least=1)
    assert decision.diagnosis is not None
    assert decision.diagnosis.nearest is not None
    assert decision.diagnosis.nearest.reason is FilterReason.MEASUREMENT_MISSING
    assert "Orin (nvgpu)" in decision.diagnosis.nearest.message


def test_memory_left_behind_on_a_numa_node_is_free() -> None:
    left = make_device("GPU-0", 0, memory_model=MemoryModel.NUMA, memory_used_mib=70_000, process_count=0)
    assert placed(left, least=80_000).picks
    running = make_device("GPU-0", 0, memory_model=MemoryModel.NUMA, memory_used_mib=70_000, process_count=1, sharers=1)
    assert placed(running, share=10_000).picks
    assert not placed(running, share=10_001).picks
    own = make_device("GPU-0", 0, memory_used_mib=70_000, process_count=0)
    assert not placed(own, least=80_000).picks
