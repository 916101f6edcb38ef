"""How much of a shared device's memory each holder uses, as far as that can be said."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gpufleet_agent.devices.base import ProcessMemory, Sample
from gpufleet_agent.podresources.holdings import DeviceHolder, Holders
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.snapshot import DeviceSnapshot
from gpufleet_common.device_use import IDLE_MEMORY_MIB

PodLookup = Callable[[int], tuple[str, ...] | None]
"""UIDs of the pods that the process of a number runs in; None: nobody can tell."""


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """A holder that was promised memory of a device, and what it uses of it."""

    uuid: str
    index: int
    key: ContainerKey
    pod_uid: str
    promised_mib: int
    used_mib: int | None
    """None: nobody can tell."""
    reading: object = field(default=None, compare=False, repr=False)
    """What of the hardware said so: one object for each reading. None: it isn't known which."""


def usages_of_device(
    device: DeviceSnapshot, holders: tuple[DeviceHolder, ...], pods: PodLookup, stale_seconds: float
) -> Iterator[MemoryUsage]:
    """Each holder that was promised memory of the device.

    Processes go to the pod that they run in. Where that can't be said of each, the whole device's use is that of its
    only holder, and of several it can't be said. Nor can it from a sample that is older than `stale_seconds`: it may
    be of the time of another holder.
    """
    sample = _fresh(device, stale_seconds)
    processes = None if sample is None or _hidden(sample) else sample.processes
    by_pod = None if processes is None else _by_pod(processes, {holder.pod_uid for holder in holders}, pods)
    for holder in holders:
        if holder.memory_mib is None or holder.pod_uid is None:
            continue
        used: int | None = None
        reading: object = sample
        if by_pod is not None:
            used = by_pod.get(holder.pod_uid, 0)
            # The list stays the same object in all samples until the next slow reading; an empty one is ever the same.
            reading = processes or sample
        elif len(holders) == 1 and sample is not None:
            used = sample.memory_used_mib
        yield MemoryUsage(
            device.info.uuid, device.info.index, holder.key, holder.pod_uid, holder.memory_mib, used, reading
        )


def memory_usages(
    devices: tuple[DeviceSnapshot, ...], holders: Holders, pods: PodLookup, stale_seconds: float
) -> tuple[MemoryUsage, ...]:
    """Each holder of the node that was promised memory of a device. Asks about processes of shared devices alone."""
    return tuple(
        use
        for device in devices
        if _promised(device, holders)
        for use in usages_of_device(device, holders[device.info.uuid], pods, stale_seconds)
    )


def relevant_processes(devices: tuple[DeviceSnapshot, ...], holders: Holders, stale_seconds: float) -> frozenset[int]:
    """Numbers of the processes that `memory_usages` may ask about."""
    samples = (_fresh(device, stale_seconds) for device in devices if _promised(device, holders))
    return frozenset(process.pid for sample in samples if sample is not None for process in sample.processes or ())


def _promised(device: DeviceSnapshot, holders: Holders) -> bool:
    return any(holder.memory_mib is not None for holder in holders.get(device.info.uuid, ()))


def _fresh(device: DeviceSnapshot, stale_seconds: float) -> Sample | None:
    age = device.sample_age_seconds
    return device.sample if age is not None and age <= stale_seconds else None


def _hidden(sample: Sample) -> bool:
    """Whether memory is in use and no process is listed: the driver hides those of other PID namespaces."""
    return sample.processes == () and (sample.memory_used_mib or 0) > IDLE_MEMORY_MIB


def _by_pod(processes: tuple[ProcessMemory, ...], wanted: set[str | None], pods: PodLookup) -> dict[str, int] | None:
    """MiB by pod UID; None when one of a holder may be missing: it can't be found, or tells nothing."""
    found: dict[str, int] = {}
    for process in processes:
        inside = pods(process.pid)
        if inside is None:
            return None
        owner = next((uid for uid in inside if uid in wanted), None)
        if owner is None:
            continue  # of the host, or of a pod that was promised nothing
        if process.memory_mib is None:
            return None
        found[owner] = found.get(owner, 0) + round(process.memory_mib)
    return found
