"""Attributes utilization and memory of devices to the containers that hold them, by the pods of their processes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gpufleet_agent.devices.base import Number, ProcessMemory, Sample
from gpufleet_agent.overuse.memory_usage import PodLookup, fresh_sample
from gpufleet_agent.podresources.holdings import Holders, HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.snapshot import DeviceSnapshot


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """Use of a device by the processes of a container. `None`: unknown."""

    uuid: str
    key: ContainerKey
    utilization_percent: int | None
    memory_mib: int | None


def container_usages(
    devices: Iterable[DeviceSnapshot], holders: Holders, pods: PodLookup, stale_seconds: float
) -> tuple[ContainerUsage, ...]:
    """Returns the usage of each holder of which something is known.

    A process counts for the pod in whose cgroup it runs. Nothing is known of two containers of one pod that hold the
    same device, of a pod without a known UID, and of a sample older than `stale_seconds`.
    """
    found = (
        usage
        for device in devices
        for usage in _of_device(device, holders.get(device.info.uuid, ()), pods, stale_seconds)
    )
    return tuple(usage for usage in found if (usage.utilization_percent, usage.memory_mib) != (None, None))


def held_processes(devices: Iterable[DeviceSnapshot], holders: Holders, stale_seconds: float) -> frozenset[int]:
    """Returns the PIDs that `container_usages` may look up."""
    samples = (fresh_sample(device, stale_seconds) for device in devices if holders.get(device.info.uuid))
    found: set[int] = set()
    for sample in samples:
        if sample is not None:
            found.update(process.pid for process in sample.processes or ())
            found.update(part.pid for part in sample.process_utilization or ())
    return frozenset(found)


def _of_device(
    device: DeviceSnapshot, held: tuple[HoldingContainer, ...], pods: PodLookup, stale_seconds: float
) -> Iterator[ContainerUsage]:
    sample = fresh_sample(device, stale_seconds)
    by_uid = _distinct(held)
    if sample is None or not by_uid:
        return
    utilization = _utilization(sample, by_uid, pods)
    memory = _memory(sample.processes, by_uid, pods)
    for uid, holder in by_uid.items():
        yield ContainerUsage(device.info.uuid, holder.key, utilization.get(uid), memory.get(uid))


def _distinct(held: tuple[HoldingContainer, ...]) -> dict[str, HoldingContainer]:
    """Returns the holders whose pods are known, by pod UID, without pods of which two containers hold the device."""
    uids = [holder.process_uid or holder.pod_uid for holder in held]
    return {uid: holder for uid, holder in zip(uids, held, strict=True) if uid is not None and uids.count(uid) == 1}


def _utilization(sample: Sample, wanted: Mapping[str, HoldingContainer], pods: PodLookup) -> dict[str, int]:
    """Returns percent by pod UID. A pod of whose process no percentage is known is missing."""
    parts = sample.process_utilization
    if parts is None or (not parts and sample.utilization_percent != 0):
        return {}
    # Parts are sampled at different times, so their sum may exceed the whole.
    sums = _sums(((part.pid, part.percent) for part in parts), wanted, pods)
    return {uid: min(100, percent) for uid, percent in sums.items()}


def _memory(
    processes: tuple[ProcessMemory, ...] | None, wanted: Mapping[str, HoldingContainer], pods: PodLookup
) -> dict[str, int]:
    """Returns MiB by pod UID. A pod of whose process the memory is not known is missing."""
    if processes is None:
        return {}
    return _sums(((process.pid, process.memory_mib) for process in processes), wanted, pods)


def _sums(
    parts: Iterable[tuple[int, Number | None]], wanted: Mapping[str, HoldingContainer], pods: PodLookup
) -> dict[str, int]:
    """Adds up a value of processes by pod UID: 0 for a pod without a process.

    A pod is missing if the value of one of its processes is not known.

    Args:
        parts: PID and value of each process; None: not known.
        wanted: The pods.
        pods: Looks up processes.
    """
    found: dict[str, int | None] = dict.fromkeys(wanted, 0)
    for pid, value in parts:
        owner = next((uid for uid in pods(pid) or () if uid in wanted), None)
        if owner is not None:
            so_far = found[owner]
            found[owner] = None if so_far is None or value is None else so_far + round(value)
    return {uid: total for uid, total in found.items() if total is not None}
