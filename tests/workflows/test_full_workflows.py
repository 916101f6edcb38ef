"""Three full workflows: sampled and published by the agent, placed, reserved and divided by the operator."""

from itertools import pairwise
from typing import Any

from gpufleet_agent.devices.base import DeviceLostError


def shards(cluster: Any, workload: str) -> dict[int, tuple[int, int]]:
    return {replica: (a.shard_start, a.shard_end) for replica, (_, a) in cluster.assignments(workload).items()}


def devices(cluster: Any, workload: str) -> list[str]:
    return [uuid for _, a in cluster.assignments(workload).values() for uuid in a.devices]


def test_full_workflow_uniform_distribution(cluster: Any, make: Any) -> None:
    """Four equal devices on two nodes, four replicas: equal parts, the first ones get one more."""
    for node in ("a", "b"):
        cluster.join(node, make.hardware(*(make.gpu(f"GPU-{node}-{i}", i) for i in range(2))))
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


def test_full_workflow_capacity_distribution(cluster: Any, make: Any) -> None:
    """Parts follow the memory that the samples show to be free; a full device gets nothing, and no device is lost."""
    used = (0, 20_000, 40_000, 80_000)
    cluster.join("a", make.hardware(*(make.gpu(f"GPU-{i}", i, memory_used_mib=mib) for i, mib in enumerate(used))))
    distribution = {"items": 900, "mode": "Proportional", "by": "FreeMemory"}
    cluster.apply("train", replicas=4, placement={"gang": True}, distribution=distribution)
    cluster.settle()
    size = {a.devices[0]: a.shard_end - a.shard_start for _, a in cluster.assignments("train").values()}
    assert size == {"GPU-0": 400, "GPU-1": 300, "GPU-2": 200, "GPU-3": 0}
    ranges = list(shards(cluster, "train").values())
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 900
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))


def test_full_workflow_capacity_distribution_with_a_maximum(cluster: Any, make: Any) -> None:
    cluster.join("a", make.hardware(make.gpu("GPU-0", 0), make.gpu("GPU-1", 1, memory_used_mib=60_000)))
    distribution = {"items": 100, "mode": "Proportional", "maxPerReplica": 45}
    cluster.apply("train", replicas=2, placement={"gang": True}, distribution=distribution)
    cluster.settle()
    assert sorted(end - start for start, end in shards(cluster, "train").values()) == [45, 45]
    assert cluster.status("train").unassigned_items == 10


def test_full_workflow_heterogeneous_devices(cluster: Any, make: Any) -> None:
    """Two models, two devices per replica. One device is lost, one too hot, one sends what can't be true, one doesn't
    say how warm it is: none of them is used, and each is told by its reason to a workload that finds none."""
    cluster.join(
        "a",
        make.hardware(
            *(make.gpu(f"GPU-big-{i}", i) for i in range(4)),
            make.gpu("GPU-lost", 4, failure=DeviceLostError("GPU-lost", "fell off the bus")),
            make.gpu("GPU-hot", 5, temperature_celsius=95),
        ),
    )
    small = {"model": "Small", "memory_total_mib": 16_000}
    cluster.join(
        "b",
        make.hardware(
            *(make.gpu(f"GPU-small-{i}", i, **small) for i in range(4)),
            make.gpu("GPU-liar", 4, utilization_percent=900, **small),
            make.gpu("GPU-mute", 5, temperature_celsius=None, **small),
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
    size = {a.devices[0][:7]: a.shard_end - a.shard_start for _, a in cluster.assignments("train").values()}
    assert size == {"GPU-big": 160, "GPU-sma": 32}
    cluster.apply("late", requirements={"maxTemperatureCelsius": 80})
    cluster.settle()
    explanation = cluster.status("late").explanation
    assert {r.reason: r.devices for r in explanation.rejections} == {
        "DeviceInUse": 8,
        "DeviceUnhealthy": 1,
        "TelemetryStale": 1,
        "TooHot": 1,
        "MeasurementMissing": 1,
    }


def test_nothing_is_reserved_for_what_does_not_fit(cluster: Any, make: Any) -> None:
    cluster.join("a", make.hardware(*(make.gpu(f"GPU-{i}", i) for i in range(3))))
    cluster.apply("train", replicas=4, placement={"gang": True}, distribution={"items": 9})
    cluster.settle()
    assert cluster.assignments("train") == {}
    assert "3 of 4 replicas would fit" in cluster.status("train").explanation.message
