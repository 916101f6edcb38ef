"""Three full workflows: pick devices, divide the items among the replicas, lose a device, divide again."""

from dataclasses import replace
from typing import TypedDict, Unpack

import pytest

from gpufleet_operator.distribution import apportion, apportion_evenly, reshard
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Request


class DeviceFields(TypedDict, total=False):
    model: str
    memory_total_mib: int
    memory_used_mib: int
    temperature_celsius: int
    healthy: bool


def device(uuid: str, index: int, **fields: Unpack[DeviceFields]) -> DeviceState:
    usual = DeviceState(
        uuid=uuid,
        index=index,
        model="H100",
        memory_total_mib=80_000,
        sample_age_seconds=1.0,
        temperature_celsius=40,
        utilization_percent=0,
        memory_used_mib=0,
        process_count=0,
    )
    return replace(usual, **fields)


def fleet(*devices: DeviceState) -> Fleet:
    return Fleet.of([NodeState("node-1", devices, free_pods=110)])


def capacities(found: Fleet, request: Request, value: str) -> dict[int, int]:
    """Per replica, the sum over its devices."""
    picks = place(found, request).picks
    assert len(picks) == len(request.replicas)
    states = {d.uuid: d for n in found.nodes.values() for d in n.devices}
    return {p.replica: sum(getattr(states[u], value) or 0 for u in p.devices) for p in picks}


def test_uniform_workflow() -> None:
    found = fleet(*(device(f"GPU-{i}", i) for i in range(4)))
    request = Request("ml/train", (0, 1, 2, 3), gang=True)
    picks = place(found, request).picks
    assert sorted(u for p in picks for u in p.devices) == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    before = apportion_evenly(1_000_003, request.replicas)
    assert sorted(before.items.values(), reverse=True) == [250_001, 250_001, 250_001, 250_000]
    after = reshard({k: [r] for k, r in before.ranges.items()}, apportion_evenly(1_000_003, (0, 1, 3)))
    assert after.moved == before.items[2]
    assert sum(e - s for ranges in after.ranges.values() for s, e in ranges) == 1_000_003


def test_capacity_workflow() -> None:
    used = (0, 20_000, 40_000, 60_000)
    found = fleet(*(device(f"GPU-{i}", i, memory_used_mib=used[i]) for i in range(4)))
    request = Request("ml/train", (0, 1, 2, 3), gang=True)
    free = capacities(found, request, "memory_free_mib")
    assert sorted(free.values()) == [20_000, 40_000, 60_000, 80_000]
    before = apportion(1_000, free)
    assert [before.items[r] for r in sorted(free, key=lambda r: free[r])] == [100, 200, 300, 400]
    slow = max(free, key=lambda r: free[r])
    after = apportion(1_000, {**free, slow: 20_000})
    assert reshard({k: [r] for k, r in before.ranges.items()}, after).moved == sum(
        max(0, after.items[r] - before.items[r]) for r in free
    )


def test_heterogeneous_devices_workflow() -> None:
    """Two models, two devices per replica, a limit per replica, and a device that must not be used."""
    found = fleet(
        *(device(f"GPU-big-{i}", i) for i in range(4)),
        *(
            device(f"GPU-small-{i}", 4 + i, model="T4", memory_total_mib=16_000, temperature_celsius=60)
            for i in range(4)
        ),
        device("GPU-sick", 8, healthy=False),
        device("GPU-hot", 9, temperature_celsius=95),
    )
    request = Request("ml/train", (0, 1, 2, 3), DeviceNeeds(count=2, max_temperature_celsius=90), gang=True)
    total = capacities(found, request, "memory_total_mib")
    assert sorted(total.values()) == [32_000, 32_000, 160_000, 160_000]
    divided = apportion(384, total, maximum=150)
    assert sorted(divided.items.values()) == [42, 42, 150, 150]
    capped = apportion(10_000, total, maximum=150)
    assert (set(capped.items.values()), capped.unassigned) == ({150}, 9_400)


@pytest.mark.parametrize("count", [1, 10_000])
def test_many_receivers_are_divided_among_exactly(count: int) -> None:
    found = apportion(10**9 + 7, {i: 1 + i % 97 for i in range(count)}, dict.fromkeys(range(0, count, 3), 10**8))
    assert sum(found.items.values()) + found.unassigned == 10**9 + 7
