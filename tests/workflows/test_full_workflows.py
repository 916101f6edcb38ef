"""Three full workflows: sampled and published by the agent, placed, reserved and divided by the operator."""

from itertools import pairwise

from gpufleet_agent.devices.base import DeviceLostError
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_testing.workflows import ObjectCluster, fake_hardware, gpu


def shard(assignment: Assignment) -> tuple[int, int]:
    assert assignment.shard_start is not None
    assert assignment.shard_end is not None
    return assignment.shard_start, assignment.shard_end


def size(assignment: Assignment) -> int:
    start, end = shard(assignment)
    return end - start


def shards(cluster: ObjectCluster, workload: str) -> dict[int, tuple[int, int]]:
    return {replica: shard(a) for replica, (_, a) in cluster.assignments(workload).items()}


def devices(cluster: ObjectCluster, workload: str) -> list[str]:
    return [uuid for _, a in cluster.assignments(workload).values() for uuid in a.devices]


async def test_full_workflow_uniform_distribution() -> None:
    """Four equal devices on two nodes, four replicas: equal parts, the first ones get one more."""
    cluster = ObjectCluster()
    for node in ("a", "b"):
        await cluster.join(node, fake_hardware(*(gpu(f"GPU-{node}-{i}", i) for i in range(2))))
    cluster.apply("train", replicas=4, placement={"gang": True}, distribution={"items": 1_000_003})
    cluster.settle()
    assert sorted(devices(cluster, "train")) == ["GPU-a-0", "GPU-a-1", "GPU-b-0", "GPU-b-1"]
    assert shards(cluster, "train") == {
        0: (0, 250_001),
        1: (250_001, 500_002),
        2: (500_002, 750_003),
        3: (750_003, 1_000_003),
    }
    status = cluster.status("train")
    assert [(p.shard_start, p.shard_end) for p in status.placements] == list(shards(cluster, "train").values())
    assert {c.type: c.status for c in status.conditions}["Placed"] == "True"


async def test_full_workflow_capacity_distribution() -> None:
    """Parts follow the memory that the samples show to be free; a full device gets nothing, and no device is lost."""
    cluster = ObjectCluster()
    used = (0, 20_000, 40_000, 80_000)
    await cluster.join("a", fake_hardware(*(gpu(f"GPU-{i}", i, memory_used_mib=mib) for i, mib in enumerate(used))))
    distribution = {"items": 900, "mode": "Proportional", "by": "FreeMemory"}
    cluster.apply("train", replicas=4, placement={"gang": True}, distribution=distribution)
    cluster.settle()
    sizes = {a.devices[0]: size(a) for _, a in cluster.assignments("train").values()}
    assert sizes == {"GPU-0": 400, "GPU-1": 300, "GPU-2": 200, "GPU-3": 0}
    ranges = list(shards(cluster, "train").values())
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 900
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))


async def test_full_workflow_capacity_distribution_with_a_maximum() -> None:
    cluster = ObjectCluster()
    await cluster.join("a", fake_hardware(gpu("GPU-0", 0), gpu("GPU-1", 1, memory_used_mib=60_000)))
    distribution = {"items": 100, "mode": "Proportional", "maxPerReplica": 45}
    cluster.apply("train", replicas=2, placement={"gang": True}, distribution=distribution)
    cluster.settle()
    assert sorted(end - start for start, end in shards(cluster, "train").values()) == [45, 45]
    assert cluster.status("train").unassigned_items == 10


async def test_full_workflow_heterogeneous_devices() -> None:
    """Two models, two devices per replica. One device is lost, one too hot, one sends what can't be true, one doesn't
    say how warm it is: none of them is used, and each is reported by its reason to a workload that finds none."""
    cluster = ObjectCluster()
    await cluster.join(
        "a",
        fake_hardware(
            *(gpu(f"GPU-big-{i}", i) for i in range(4)),
            gpu("GPU-lost", 4, failure=DeviceLostError("GPU-lost", "fell off the bus")),
            gpu("GPU-hot", 5, temperature_celsius=95),
        ),
    )
    await cluster.join(
        "b",
        fake_hardware(
            *(gpu(f"GPU-small-{i}", i, model="Small", memory_total_mib=16_000) for i in range(4)),
            gpu("GPU-liar", 4, utilization_percent=900, model="Small", memory_total_mib=16_000),
            gpu("GPU-mute", 5, temperature_celsius=None, model="Small", memory_total_mib=16_000),
        ),
    )
    cluster.apply(
        "train",
        replicas=4,
        devices={"count": 2},
        requirements={"maxTemperatureCelsius": 80},
        placement={"gang": True, "strategy": "Pack"},
        distribution={"items": 384, "mode": "Proportional", "by": "TotalMemory"},
    )
    cluster.settle()
    assert sorted(devices(cluster, "train")) == sorted(
        [f"GPU-big-{i}" for i in range(4)] + [f"GPU-small-{i}" for i in range(4)]
    )
    sizes = {a.devices[0][:7]: size(a) for _, a in cluster.assignments("train").values()}
    assert sizes == {"GPU-big": 160, "GPU-sma": 32}
    cluster.apply("late", requirements={"maxTemperatureCelsius": 80})
    cluster.settle()
    assert {r.reason: r.devices for r in cluster.explanation("late").ineligible_devices} == {
        "DeviceInUse": 8,
        "DeviceUnhealthy": 1,
        "TelemetryStale": 1,
        "TemperatureTooHigh": 1,
        "MeasurementMissing": 1,
    }


async def test_nothing_is_reserved_for_what_does_not_fit() -> None:
    cluster = ObjectCluster()
    await cluster.join("a", fake_hardware(*(gpu(f"GPU-{i}", i) for i in range(3))))
    cluster.apply("train", replicas=4, placement={"gang": True}, distribution={"items": 9})
    cluster.settle()
    assert cluster.assignments("train") == {}
    assert "3 of 4 replicas would fit" in cluster.explanation("train").message
