"""Evidence for the demo's tests: two nodes of two GPUs, and a workload of two replicas whose sources agree."""

from dataclasses import replace

from gpufleet_e2e.proof import (
    FleetEvidence,
    Gpu,
    Holding,
    ReplicaEvidence,
    ShardEvidence,
    Source,
    Statement,
    WorkloadEvidence,
)


def gpu(node: str, index: int, uuid: str, **changes: int | bool | None) -> Gpu:
    values = {"memory_total_mib": 81559, "memory_used_mib": 2048, "utilization_percent": 3, "temperature_celsius": 41}
    return Gpu(node, index, uuid, "NVIDIA H100 80GB HBM3", healthy=True, **(values | changes))


def replica(index: int, node: str, *devices: str) -> ReplicaEvidence:
    shard = (index * 50, index * 50 + 50)
    return ReplicaEvidence(
        replica=index,
        state="Allocated",
        pod=f"train-{index}-abc",
        pod_uid=f"uid-{index}",
        node=node,
        container="main",
        says={source: Statement(tuple(sorted(devices))) for source in Source if source is not Source.CLAIM},
        shard=ShardEvidence(shard, shard, shard, f"shard {shard[0]}..{shard[1]} of 100"),
        score={"total": 900 - index, "memory": 990},
    )


def make_fleet() -> FleetEvidence:
    return FleetEvidence(
        (
            gpu("node-1", 0, "GPU-11111111-aaaa"),
            gpu("node-1", 1, "GPU-22222222-aaaa", temperature_celsius=95, power_milliwatts=71_250),
            gpu("node-2", 0, "GPU-33333333-aaaa", utilization_percent=None),
            gpu("node-2", 1, "GPU-44444444-aaaa", memory_used_mib=None),
        ),
        (
            Holding("node-1", "demo", "train-0-abc", "main", "gpufleet.dev/gpu", ("GPU-11111111-aaaa",)),
            Holding("node-2", "demo", "train-1-abc", "main", "gpufleet.dev/gpu", ("GPU-33333333-aaaa",)),
        ),
    )


def make_sharers() -> tuple[list[WorkloadEvidence], FleetEvidence]:
    """Builds two workloads, of two replicas and one, that share a device by the kubelet's slots."""
    uuid, found = "GPU-11111111-aaaa", []
    holdings: list[Holding] = []
    for name, replicas, memory in (("shared", 2, 8000), ("shared-inference", 1, 12_000)):
        promised = {Source.RESERVATION: memory, Source.ENVIRONMENT: memory}
        pods = [
            replace(replica(index, "node-1", uuid), pod=f"{name}-{index}-a1b2c3", promised_mib=promised)
            for index in range(replicas)
        ]
        found.append(WorkloadEvidence("demo", name, replicas, 1, tuple(pods), memory_mib=memory))
        for one in pods:
            slot = f"{uuid}::{len(holdings)}"
            holdings.append(Holding("node-1", "demo", one.pod, "main", "gpufleet.dev/gpu-shared", (slot,)))
    return found, FleetEvidence((gpu("node-1", 0, uuid), gpu("node-1", 1, "GPU-22222222-aaaa")), tuple(holdings))


def make_workload() -> WorkloadEvidence:
    replicas = (replica(0, "node-1", "GPU-11111111-aaaa"), replica(1, "node-2", "GPU-33333333-aaaa"))
    return WorkloadEvidence("demo", "train", 2, 1, replicas, items=100)
