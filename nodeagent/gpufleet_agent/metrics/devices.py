"""Device readings under DCGM's names and labels, so that dashboards and alerts made for dcgm-exporter keep working.

Made from memory at each scrape: a vanished device or pod has no series any more, and a value that the hardware
doesn't report has none either.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.devices.base import Sample
from gpufleet_agent.podresources.holdings import Holder, Holders
from gpufleet_agent.sampling.view import DeviceView, NodeView

LABELS = (
    "gpu",
    "UUID",
    "pci_bus_id",
    "device",
    "modelName",
    "hostname",
    "DCGM_FI_DRIVER_VERSION",
    "namespace",
    "pod",
    "container",
)

MILLI = 1000


def _free(sample: Sample) -> int | None:
    if sample.memory_total_mib is None or sample.memory_used_mib is None:
        return None
    return sample.memory_total_mib - sample.memory_used_mib


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / MILLI


Reading = Callable[[Sample], float | None]

READINGS: tuple[tuple[str, str, Reading], ...] = (
    ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", lambda sample: sample.utilization_percent),
    (
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "Memory utilization: share of time in which memory was read or written (in %).",
        lambda sample: sample.memory_utilization_percent,
    ),
    ("DCGM_FI_DEV_FB_TOTAL", "Framebuffer memory (in MiB).", lambda sample: sample.memory_total_mib),
    ("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", lambda sample: sample.memory_used_mib),
    ("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", _free),
    ("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", lambda sample: sample.temperature_celsius),
    ("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", lambda sample: _watts(sample.power_milliwatts)),
    (
        "DCGM_FI_DEV_POWER_MGMT_LIMIT",
        "Power limit in force (in W).",
        lambda sample: _watts(sample.power_limit_milliwatts),
    ),
)


class DeviceCollector(Collector):
    """One series per device, reading and holder.

    Args:
        view: What the sampler knows.
        holders: Who holds which device.
        node_name: The label `hostname`.
        stale_seconds: A sample older than this says nothing about now.
    """

    def __init__(
        self, view: Callable[[], NodeView], holders: Callable[[], Holders], node_name: str, stale_seconds: float
    ) -> None:
        self._view = view
        self._holders = holders
        self._node_name = node_name
        self._stale_seconds = stale_seconds

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        view, holders = self._view(), self._holders()
        labelled = [(device, list(self._label_sets(device, view, holders))) for device in view.devices]
        for name, documentation, read in READINGS:
            family = GaugeMetricFamily(name, documentation, labels=LABELS)
            for device, label_sets in labelled:
                value = read(device.sample) if device.sample is not None and self._fresh(device) else None
                if value is not None:
                    for labels in label_sets:
                        family.add_metric(labels, value)
            yield family
        yield self._last_xid(labelled)

    def _last_xid(self, labelled: list[tuple[DeviceView, list[tuple[str, ...]]]]) -> Metric:
        family = GaugeMetricFamily(
            "DCGM_FI_DEV_XID_ERRORS", "Code of the last XID error since the agent started.", labels=LABELS
        )
        for device, label_sets in labelled:
            xids = [event for event in device.events if event.kind == "XidError"]
            if xids:
                last = max(xids, key=lambda event: event.last_at)
                for labels in label_sets:
                    family.add_metric(labels, last.code)
        return family

    def _fresh(self, device: DeviceView) -> bool:
        return device.sample_age_seconds is not None and device.sample_age_seconds <= self._stale_seconds

    def _label_sets(self, device: DeviceView, view: NodeView, holders: Holders) -> Iterator[tuple[str, ...]]:
        info = device.info
        nobody: tuple[Holder | None, ...] = (None,)
        for holder in holders.get(info.uuid) or nobody:
            held = ("", "", "") if holder is None else (holder.key.namespace, holder.key.pod, holder.key.container)
            yield (
                str(info.index),
                info.uuid,
                info.pci_bus_id or "",
                f"nvidia{info.index}",
                info.model,
                self._node_name,
                view.driver_version or "",
                *held,
            )
