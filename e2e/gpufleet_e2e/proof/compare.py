"""Compares sources: all must name the same devices, and each device must have one holder. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpufleet_e2e.proof.evidence import FleetEvidence, ReplicaEvidence, Shard, Source, Statement, WorkloadEvidence
from gpufleet_e2e.proof.objects import device_of

CHECKED_SOURCES = (
    Source.RESERVATION,
    Source.ANNOTATION,
    Source.ENVIRONMENT,
    Source.POD_RESOURCES,
    Source.POD_STATUS,
    Source.CLAIM,
)
"""The sources that must agree with the status. A pod without a claim does not have the last one."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A disagreement. `subject` is `namespace/name[replica]`, a workload or a device."""

    subject: str
    source: str
    message: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.source}: {self.message}"


def compare(
    workloads: Sequence[WorkloadEvidence], fleet: FleetEvidence, *, sources: Sequence[Source] = CHECKED_SOURCES
) -> tuple[Disagreement, ...]:
    """Returns all disagreements, in the order of `workloads`.

    Args:
        workloads: Each must have all of its replicas, each with the number of devices of the spec.
        fleet: A device must be on the pod's node, and only one container may have it.
        sources: The sources that must agree with the status; see `EvidenceCollector.sources`.
    """
    return tuple(_disagreements(workloads, fleet, sources))


def compare_replica(replica: ReplicaEvidence, sources: Sequence[Source] = CHECKED_SOURCES) -> dict[Source, str]:
    """Returns the disagreement of each source with the status of one replica."""
    found = {}
    for source in sources:
        if source is Source.CLAIM and source not in replica.says:
            continue
        statement = replica.says.get(source, Statement(None, "not read"))
        if statement.devices is None:
            found[source] = f"has no answer ({statement.problem or 'no reason given'})"
        elif statement.devices != replica.picked:
            found[source] = f"names {_names(statement.devices)}, the status names {_names(replica.picked)}"
    return found


def incomplete(workload: WorkloadEvidence) -> bool:
    """Returns whether a source has no answer yet. A missing answer may still come; a wrong one is final.

    A status that names no devices has none for the pod that exists now: it is written after a pod was replaced.
    """
    unanswered = any(
        not replica.picked or any(statement.devices is None for statement in replica.says.values())
        for replica in workload.replicas
    )
    unprinted = workload.items is not None and any(replica.shard.log is None for replica in workload.replicas)
    return unanswered or unprinted or len(workload.replicas) < workload.replicas_wanted


def _disagreements(
    workloads: Sequence[WorkloadEvidence], fleet: FleetEvidence, sources: Sequence[Source]
) -> Iterator[Disagreement]:
    for workload in workloads:
        yield from _replica_count(workload)
        for replica in workload.replicas:
            subject = f"{workload.title}[{replica.replica}]"
            if len(replica.picked) != workload.devices_per_replica:
                message = f"{len(replica.picked)} devices, the spec requests {workload.devices_per_replica}"
                yield Disagreement(subject, Source.STATUS, message)
            for source, message in compare_replica(replica, sources).items():
                yield Disagreement(subject, source, message)
            for source, promised in replica.promised_mib.items():
                if promised != workload.memory_mib:
                    yield Disagreement(
                        subject, source, f"promises {_mib(promised)}, the spec requests {_mib(workload.memory_mib)}"
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
    if workload.open_ended and len(have) != workload.replicas_wanted:
        message = f"names {len(have)} replicas, {workload.replicas_wanted} pods exist"
        yield Disagreement(workload.title, Source.STATUS, message)
    for index in sorted(have) if workload.open_ended else range(workload.replicas_wanted):
        if have[index] != 1:
            subject = f"{workload.title}[{index}]"
            yield Disagreement(subject, Source.STATUS, f"contains it {have[index]} times, not once")
    for index in sorted(have):
        if index >= workload.replicas_wanted and not workload.open_ended:
            message = f"names replica {index}, the spec requests {workload.replicas_wanted}"
            yield Disagreement(workload.title, Source.STATUS, message)
    for pod in workload.stray_pods:
        yield Disagreement(workload.title, Source.STATUS, f"does not name the live pod {pod}")


def _double_picks(workloads: Iterable[WorkloadEvidence], fleet: FleetEvidence) -> Iterator[Disagreement]:
    """A device is picked once as a whole, or shared within its memory.

    Memory that others may get when it is not used does not count.
    """
    pickers: defaultdict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for workload in workloads:
        for replica in workload.replicas:
            for uuid in replica.picked:
                promised = 0 if workload.reclaims else workload.memory_mib
                pickers[uuid].append((f"{workload.title}[{replica.replica}]", promised))
    for uuid, who in sorted(pickers.items()):
        names = " and ".join(name for name, _ in who)
        promises = [promised for _, promised in who if promised is not None]
        if len(who) > 1 and len(promises) < len(who):
            yield Disagreement(uuid, Source.STATUS, f"picked for {names}")
        gpu = fleet.gpu(uuid)
        usable = None if gpu is None else gpu.memory_usable_mib
        if usable is not None and sum(promises) > usable:
            message = f"{sum(promises)} of {usable} MiB promised to {names}"
            yield Disagreement(uuid, Source.STATUS, message)


def _double_holders(fleet: FleetEvidence) -> Iterator[Disagreement]:
    """A device is held by one container, or each of its slots by one."""
    holders: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for device_id, name in dict.fromkeys((d, holding.holder) for holding in fleet.holdings for d in holding.devices):
        holders[device_of(device_id)][device_id].append(name)
    for uuid, by_id in sorted(holders.items()):
        # A device held both as a whole and in slots has too many holders.
        groups = [[who for hands in by_id.values() for who in hands]] if uuid in by_id else list(by_id.values())
        for who in groups:
            if len(who) > 1:
                yield Disagreement(uuid, Source.POD_RESOURCES, f"held by {' and '.join(who)}")


def compare_shards(workload: WorkloadEvidence) -> tuple[Disagreement, ...]:
    """Compares the shards of a distribution, which must tile 0..items exactly.

    Status, environment and log must agree for each replica; sorted by their start, the shards have no gap and no
    overlap; the remaining items are those that the status reports as unassigned.
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
        for source, found in ((Source.ENVIRONMENT, shard.environment), ("container log", shard.log)):
            if found != shard.status:
                yield Disagreement(subject, source, f"names {_range(found)}, the status names {_range(shard.status)}")
    yield from _gaps(workload.title, shards, workload.items - workload.unassigned_items)


def _gaps(title: str, shards: Sequence[Shard], assigned: int) -> Iterator[Disagreement]:
    reached = 0
    for start, end in sorted(shards):
        if start != reached or end < start:
            yield Disagreement(title, "shards", f"{_range((start, end))} does not follow on {reached}")
        reached = end
    if reached != assigned:
        yield Disagreement(title, "shards", f"end at {reached}, {assigned} items are assigned")


def _mib(promised: int | None) -> str:
    return "whole devices" if promised is None else f"{promised} MiB"


def _names(devices: Sequence[str]) -> str:
    return ", ".join(devices) or "no device"


def _range(shard: Shard | None) -> str:
    return f"{shard[0]}..{shard[1]}" if shard else "nothing"
