"""Series that say which containers hold which devices, to be joined with series of devices."""

from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.podresources.holdings import Holders, HoldingContainer
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, NodeSnapshot
from gpufleet_common.units import BYTES_PER_MIB

LABELS = ("UUID", "hostname", "namespace", "pod", "container")


class HolderCollector(Collector):
    """Collects one series per device and holder.

    Args:
        snapshot: Returns the sampler's snapshot.
        holders: Returns the containers that hold each device.
        node_name: Value of the label `hostname`.
    """

    def __init__(self, snapshot: Callable[[], NodeSnapshot], holders: Callable[[], Holders], node_name: str) -> None:
        self._snapshot = snapshot
        self._holders = holders
        self._node_name = node_name

    def collect(self) -> Iterable[Metric]:
        held = GaugeMetricFamily(
            "gpufleet_device_holder",
            "Memory of the device that is promised to the container, in bytes: all of it for a whole device, 0 for a "
            "share slot without a promise. One series per holder.",
            labels=LABELS,
        )
        holders = self._holders()
        for device in self._snapshot().devices:
            uuid = device.info.uuid
            for holder in holders.get(uuid, ()):
                key = holder.key
                labels = [uuid, self._node_name, key.namespace, key.pod, key.container]
                held.add_metric(labels, _promised_mib(holder, device) * BYTES_PER_MIB)
        yield held


def _promised_mib(holder: HoldingContainer, device: DeviceSnapshot) -> int:
    if holder.memory_mib is not None:
        return holder.memory_mib
    sample = device.sample
    total = device.info.memory_total_mib if sample is None else sample.memory_total_mib
    return 0 if holder.shared or total is None else total
