"""Attributes the used memory of shared devices to their holders, as far as that is possible."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gpufleet_agent.devices.base import ProcessMemory, Sample
from gpufleet_agent.podresources.holdings import Holders, HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.snapshot import DeviceSnapshot
from gpufleet_common.device_use import IDLE_MEMORY_MIB

PodLookup = Callable[[int], tuple[str, ...] | None]
"""Maps a PID to the UIDs of the pods that the process runs in; None: unknown."""

HolderKey = tuple[str, str]
"""Device and pod UID."""


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory of a device that a holder was promised, and that it uses."""

    uuid: str
    index: int
    key: ContainerKey
    pod_uid: str
    promised_mib: int
    used_mib: int | None
    """None: unknown."""
    reading: object = field(default=None, compare=False, repr=False)
    """Identity of the hardware reading that `used_mib` is from: one object per reading. None: unknown."""

    @property
    def holder(self) -> HolderKey:
        return self.uuid, self.pod_uid


def usages_of_device(
    device: DeviceSnapshot, holders: tuple[HoldingContainer, ...], pods: PodLookup, stale_seconds: float
) -> Iterator[MemoryUsage]:
    """Yields the usage of each holder that was promised memory of the device.

    A process counts for the pod that it runs in. If that is not known of every process, the device's whole memory in
    use counts for its only holder; with several holders, or if the memory is not the device's own, usage is unknown. It
    is also unknown from a sample older than `stale_seconds`, because the device may have had another holder then.
    """
    sample = fresh_sample(device, stale_seconds)
    own_memory = device.info.memory_model is None
    processes = None if sample is None or (own_memory and _has_hidden_processes(sample)) else sample.processes
    by_pod = None if processes is None else _by_pod(processes, {holder.pod_uid for holder in holders}, pods)
    for holder in holders:
        if holder.memory_mib is None or holder.pod_uid is None:
            continue
        used: int | None = None
        reading: object = sample
        if by_pod is not None:
            used = by_pod.get(holder.pod_uid, 0)
            # The same list object is in all samples until the next slow reading. An empty tuple is always the same
            # object, so it identifies no reading.
            reading = processes or sample
        elif len(holders) == 1 and sample is not None and own_memory:
            used = sample.memory_used_mib
        yield MemoryUsage(
            device.info.uuid, device.info.index, holder.key, holder.pod_uid, holder.memory_mib, used, reading
        )


def memory_usages(
    devices: tuple[DeviceSnapshot, ...], holders: Holders, pods: PodLookup, stale_seconds: float
) -> tuple[MemoryUsage, ...]:
    """Returns the usage of each holder that was promised memory. Looks up processes of shared devices only."""
    return tuple(
        usage
        for device in devices
        if _has_promise(device, holders)
        for usage in usages_of_device(device, holders[device.info.uuid], pods, stale_seconds)
    )


def relevant_processes(devices: tuple[DeviceSnapshot, ...], holders: Holders, stale_seconds: float) -> frozenset[int]:
    """Returns the PIDs that `memory_usages` may look up."""
    samples = (fresh_sample(device, stale_seconds) for device in devices if _has_promise(device, holders))
    return frozenset(process.pid for sample in samples if sample is not None for process in sample.processes or ())


def _has_promise(device: DeviceSnapshot, holders: Holders) -> bool:
    return any(holder.memory_mib is not None for holder in holders.get(device.info.uuid, ()))


def fresh_sample(device: DeviceSnapshot, stale_seconds: float) -> Sample | None:
    """Returns the last sample; None if there is none, or it is older."""
    age = device.sample_age_seconds
    return device.sample if age is not None and age <= stale_seconds else None


def _has_hidden_processes(sample: Sample) -> bool:
    """Returns whether memory is in use without a process: the driver hides those of other PID namespaces."""
    return sample.processes == () and (sample.memory_used_mib or 0) > IDLE_MEMORY_MIB


def _by_pod(processes: tuple[ProcessMemory, ...], wanted: set[str | None], pods: PodLookup) -> dict[str, int] | None:
    """Returns MiB by pod UID; None: the pod or the memory of a process is unknown, so a holder's sum may lack it."""
    found: dict[str, int] = {}
    for process in processes:
        uids = pods(process.pid)
        if uids is None:
            return None
        owner = next((uid for uid in uids if uid in wanted), None)
        if owner is None:
            continue  # of the host, or of a pod without a promise
        if process.memory_mib is None:
            return None
        found[owner] = found.get(owner, 0) + round(process.memory_mib)
    return found
