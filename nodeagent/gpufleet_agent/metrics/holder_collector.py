"""Series of devices and of the containers that hold them: their promises and their use."""

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.overuse.container_usage import ContainerUsage
from gpufleet_agent.podresources.holdings import Holders, HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, NodeSnapshot
from gpufleet_common.units import BYTES_PER_MIB

LABELS = ("UUID", "hostname", "namespace", "pod", "container")


class HolderCollector(Collector):
    """Collects one series per device, and one per device and holder.

    Args:
        snapshot: Returns the sampler's snapshot.
        holders: Returns the containers that hold each device.
        node_name: Value of the label `hostname`.
        usages: Returns what containers use.
    """

    def __init__(
        self,
        snapshot: Callable[[], NodeSnapshot],
        holders: Callable[[], Holders],
        node_name: str,
        usages: Callable[[], tuple[ContainerUsage, ...]] = tuple,
    ) -> None:
        self._snapshot = snapshot
        self._holders = holders
        self._node_name = node_name
        self._usages = usages

    def collect(self) -> Iterable[Metric]:
        described = GaugeMetricFamily(
            "gpufleet_device_info",
            "Always 1; one series per device, with its model. Join it by UUID.",
            labels=("gpu", "UUID", "hostname", "model"),
        )
        held = GaugeMetricFamily(
            "gpufleet_device_holder",
            "Memory of the device that is promised to the container, in bytes: all of it for a whole device, 0 for a "
            "share slot without a promise. One series per holder.",
            labels=LABELS,
        )
        holders = self._holders()
        for device in self._snapshot().devices:
            uuid = device.info.uuid
            described.add_metric([str(device.info.index), uuid, self._node_name, device.info.model], 1)
            for holder in holders.get(uuid, ()):
                held.add_metric(self._labels(uuid, holder.key), _promised_mib(holder, device) * BYTES_PER_MIB)
        yield from (described, held)
        yield from self._used(holders)

    def _used(self, holders: Holders) -> Iterable[Metric]:
        utilization = GaugeMetricFamily(
            "gpufleet_container_gpu_utilization_ratio",
            "Part of the device's time in which the container's processes ran on it, 0 to 1.",
            labels=LABELS,
        )
        memory = GaugeMetricFamily(
            "gpufleet_container_gpu_memory_bytes",
            "Memory of the device that the container's processes use.",
            labels=LABELS,
        )
        for usage in self._usages():
            key = usage.key
            if all(key != holder.key for holder in holders.get(usage.uuid, ())):
                continue  # it has ended since the check
            labels = self._labels(usage.uuid, key)
            if usage.utilization_percent is not None:
                utilization.add_metric(labels, usage.utilization_percent / 100)
            if usage.memory_mib is not None:
                memory.add_metric(labels, usage.memory_mib * BYTES_PER_MIB)
        yield from (utilization, memory)

    def _labels(self, uuid: str, key: ContainerKey) -> list[str]:
        return [uuid, self._node_name, key.namespace, key.pod, key.container]


def _promised_mib(holder: HoldingContainer, device: DeviceSnapshot) -> int:
    if holder.memory_mib is not None:
        return holder.memory_mib
    sample = device.sample
    total = device.info.memory_total_mib if sample is None else sample.memory_total_mib
    return 0 if holder.shared or total is None else total
