"""The judgement: do all sources name the same devices, and does each device have one holder? Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpufleet_e2e.proof.evidence import FleetEvidence, ReplicaEvidence, Shard, Source, Statement, WorkloadEvidence
from gpufleet_e2e.proof.objects import device_of

CHECKED_SOURCES = (Source.RESERVATION, Source.ANNOTATION, Source.ENVIRONMENT, Source.POD_RESOURCES, Source.POD_STATUS)
"""The sources that must repeat what the status says."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One thing that does not fit. `subject` is `namespace/name[replica]`, a workload or a device."""

    subject: str
    source: str
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.source}: {self.message}"


def compare(
    workloads: Sequence[WorkloadEvidence], fleet: FleetEvidence, *, sources: Sequence[Source] = CHECKED_SOURCES
) -> tuple[Disagreement, ...]:
    """Everything that does not fit, in the order of `workloads`; empty when all is proven.

    Args:
        workloads: each must have all of its replicas, each with as many devices as the spec asks.
        fleet: a device must be on the pod's node, and no two containers may have it.
        sources: the sources that must agree with the status. A kubelet before 1.31, for one, has no
            `Source.POD_STATUS`.
    """
    return tuple(_disagreements(workloads, fleet, sources))


def compare_replica(replica: ReplicaEvidence, sources: Sequence[Source] = CHECKED_SOURCES) -> dict[Source, str]:
    """What each source says wrongly of one replica; empty when all agree with the status."""
    found = {}
    for source in sources:
        statement = replica.says.get(source, Statement(None, "not read"))
        if statement.devices is None:
            found[source] = f"says nothing ({statement.problem or 'no reason given'})"
        elif statement.devices != replica.picked:
            found[source] = f"says {_names(statement.devices)}, the status says {_names(replica.picked)}"
    return found


def incomplete(workload: WorkloadEvidence) -> bool:
    """Whether a source has not spoken yet. A word may still come where there is none; a wrong one is final."""
    unsaid = any(statement.devices is None for replica in workload.replicas for statement in replica.says.values())
    unprinted = workload.items is not None and any(replica.shard.log is None for replica in workload.replicas)
    return unsaid or unprinted or len(workload.replicas) < workload.replicas_wanted


def _disagreements(
    workloads: Sequence[WorkloadEvidence], fleet: FleetEvidence, sources: Sequence[Source]
) -> Iterator[Disagreement]:
    for workload in workloads:
        yield from _replica_count(workload)
        for replica in workload.replicas:
            subject = f"{workload.title}[{replica.replica}]"
            if len(replica.picked) != workload.devices_per_replica:
                message = f"{len(replica.picked)} devices, the spec asks for {workload.devices_per_replica}"
                yield Disagreement(subject, Source.STATUS, message)
            for source, message in compare_replica(replica, sources).items():
                yield Disagreement(subject, source, message)
            for source, told in replica.promised_mib.items():
                if told != workload.memory_mib:
                    yield Disagreement(
                        subject, source, f"promises {_mib(told)}, the spec asks for {_mib(workload.memory_mib)}"
                    )
            for uuid in replica.picked:
                gpu = fleet.gpu(uuid)
                if gpu is None or gpu.node != replica.node:
                    place = f"on {gpu.node}" if gpu else "on no node"
                    message = f"{uuid} is {place}, the pod on {replica.node or 'no node'}"
                    yield Disagreement(subject, "GPUTelemetry", message)
    yield from _double_picks(workloads, fleet)
    yield from _double_holders(fleet)


def _replica_count(workload: WorkloadEvidence) -> Iterator[Disagreement]:
    have = Counter(replica.replica for replica in workload.replicas)
    for index in range(workload.replicas_wanted):
        if have[index] != 1:
            subject = f"{workload.title}[{index}]"
            yield Disagreement(subject, Source.STATUS, f"stands there {have[index]} times, not once")
    for index in sorted(have):
        if index >= workload.replicas_wanted:
            message = f"names replica {index}, the spec asks for {workload.replicas_wanted}"
            yield Disagreement(workload.title, Source.STATUS, message)
    for pod in workload.stray_pods:
        yield Disagreement(workload.title, Source.STATUS, f"does not name the live pod {pod}")


def _double_picks(workloads: Iterable[WorkloadEvidence], fleet: FleetEvidence) -> Iterator[Disagreement]:
    """A device is picked once, or in parts that fit into it."""
    pickers: defaultdict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for workload in workloads:
        for replica in workload.replicas:
            for uuid in replica.picked:
                pickers[uuid].append((f"{workload.title}[{replica.replica}]", workload.memory_mib))
    for uuid, who in sorted(pickers.items()):
        names = " and ".join(name for name, _ in who)
        promises = [promised for _, promised in who if promised is not None]
        if len(who) > 1 and len(promises) < len(who):
            yield Disagreement(uuid, Source.STATUS, f"picked for {names}")
        gpu = fleet.gpu(uuid)
        if gpu is not None and gpu.memory_total_mib is not None and sum(promises) > gpu.memory_total_mib:
            message = f"{sum(promises)} of {gpu.memory_total_mib} MiB are promised to {names}"
            yield Disagreement(uuid, Source.STATUS, message)


def _double_holders(fleet: FleetEvidence) -> Iterator[Disagreement]:
    """A device is held by one container, or each slot of it by one."""
    holders: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for holding in fleet.holdings:
        for device_id in holding.devices:
            name = f"{holding.namespace}/{holding.pod}/{holding.container}"
            holders[device_of(device_id)][device_id].append(name)
    for uuid, by_id in sorted(holders.items()):
        # As a whole and in parts: whoever has it, the hands are too many.
        groups = [[who for hands in by_id.values() for who in hands]] if uuid in by_id else list(by_id.values())
        for who in groups:
            if len(who) > 1:
                yield Disagreement(uuid, Source.POD_RESOURCES, f"handed to {' and '.join(who)}")


def compare_shards(workload: WorkloadEvidence) -> tuple[Disagreement, ...]:
    """Whether the shards of a distribution tile 0..items exactly and everyone names the same ones.

    Status, environment and printed line must agree for each replica; sorted by their start, the shards follow each
    other without gap or overlap from 0; what they leave of the items is what the status calls unassigned.
    """
    return tuple(_shard_disagreements(workload))


def _shard_disagreements(workload: WorkloadEvidence) -> Iterator[Disagreement]:
    if workload.items is None:
        yield Disagreement(workload.title, "spec.distribution", "is not set")
        return
    shards = []
    for replica in workload.replicas:
        subject, shard = f"{workload.title}[{replica.replica}]", replica.shard
        if shard.status is None:
            yield Disagreement(subject, Source.STATUS, "names no shard")
            continue
        shards.append(shard.status)
        for source, said in ((Source.ENVIRONMENT, shard.environment), ("container log", shard.log)):
            if said != shard.status:
                yield Disagreement(subject, source, f"says {_range(said)}, the status says {_range(shard.status)}")
    yield from _gaps(workload.title, shards, workload.items - workload.unassigned_items)


def _gaps(title: str, shards: Sequence[Shard], assigned: int) -> Iterator[Disagreement]:
    reached = 0
    for start, end in sorted(shards):
        if start != reached or end < start:
            yield Disagreement(title, "shards", f"{_range((start, end))} does not follow on {reached}")
        reached = end
    if reached != assigned:
        yield Disagreement(title, "shards", f"end at {reached}, assigned are {assigned} items")


def _mib(promised: int | None) -> str:
    return "whole devices" if promised is None else f"{promised} MiB"


def _names(devices: Sequence[str]) -> str:
    return ", ".join(devices) or "no device"


def _range(shard: Shard | None) -> str:
    return f"{shard[0]}..{shard[1]}" if shard else "nothing"
