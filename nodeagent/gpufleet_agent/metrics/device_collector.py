"""Device readings under DCGM's names and labels, so that dashboards and alerts for dcgm-exporter keep working.

Built from memory at each scrape: devices and pods that are gone have no series, nor have values that the hardware
does not report.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.devices.base import Sample, ThrottleReason
from gpufleet_agent.podresources.holdings import Holders, HoldingContainer
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, NodeSnapshot

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

GAUGE = "gauge"
COUNTER = "unknown"
"""DCGM's counter names lack the `_total` suffix that OpenMetrics requires, so they are exposed as untyped."""

CLOCK_EVENT_BITS = MappingProxyType(
    {
        ThrottleReason.APPLICATION_CLOCKS: 0x2,
        ThrottleReason.SW_POWER_CAP: 0x4,
        ThrottleReason.HW_SLOWDOWN: 0x8,
        ThrottleReason.SYNC_BOOST: 0x10,
        ThrottleReason.SW_THERMAL_SLOWDOWN: 0x20,
        ThrottleReason.HW_THERMAL_SLOWDOWN: 0x40,
        ThrottleReason.HW_POWER_BRAKE_SLOWDOWN: 0x80,
        ThrottleReason.DISPLAY_CLOCKS: 0x100,
    }
)
"""As in DCGM_FI_DEV_CLOCKS_EVENT_REASONS."""


@dataclass(frozen=True, slots=True)
class DcgmField:
    """One metric family: DCGM's name, help text with unit, and how to get the value from a sample."""

    name: str
    help: str
    value: Callable[[Sample], float | None]
    kind: str = GAUGE


def _free(sample: Sample) -> int | None:
    if sample.memory_total_mib is None or sample.memory_used_mib is None:
        return None
    return sample.memory_total_mib - sample.memory_used_mib


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / MILLI


def _clock_events(sample: Sample) -> int | None:
    if sample.throttle_reasons is None:
        return None
    return sum(CLOCK_EVENT_BITS[reason] for reason in sample.throttle_reasons)


DCGM_FIELDS: tuple[DcgmField, ...] = (
    DcgmField("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", lambda of: of.sm_clock_mhz),
    DcgmField("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", lambda of: of.memory_clock_mhz),
    DcgmField("DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", lambda of: of.memory_temperature_celsius),
    DcgmField("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", lambda of: of.temperature_celsius),
    DcgmField("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", lambda of: _watts(of.power_milliwatts)),
    DcgmField(
        "DCGM_FI_DEV_POWER_MGMT_LIMIT", "Enforced power limit (in W).", lambda of: _watts(of.power_limit_milliwatts)
    ),
    DcgmField(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Energy consumed since the driver was loaded (in mJ); a counter.",
        lambda of: of.energy_millijoules,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        "PCIe retries since the driver was loaded (number); a counter.",
        lambda of: of.pcie_replays,
        COUNTER,
    ),
    DcgmField("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", lambda of: of.utilization_percent),
    DcgmField(
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "Memory utilization: percent of time in which memory was read or written (in %).",
        lambda of: of.memory_utilization_percent,
    ),
    DcgmField("DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %).", lambda of: of.encoder_percent),
    DcgmField("DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %).", lambda of: of.decoder_percent),
    DcgmField("DCGM_FI_DEV_FB_TOTAL", "Framebuffer memory (in MiB).", lambda of: of.memory_total_mib),
    DcgmField("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", lambda of: of.memory_used_mib),
    DcgmField("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", _free),
    DcgmField(
        "DCGM_FI_DEV_FB_RESERVED",
        "Framebuffer memory reserved by the driver (in MiB).",
        lambda of: of.memory_reserved_mib,
    ),
    DcgmField(
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        "Corrected memory errors since the driver was loaded (number); a counter.",
        lambda of: of.ecc_corrected,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "Uncorrected memory errors since the driver was loaded (number); a counter.",
        lambda of: of.ecc_uncorrected,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Memory rows remapped after correctable errors (number); a counter.",
        lambda of: of.remapped_correctable,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Memory rows remapped after uncorrectable errors (number); a counter.",
        lambda of: of.remapped_uncorrectable,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_ROW_REMAP_PENDING",
        "Whether a row remap is pending until the next reset (0 or 1).",
        lambda of: of.row_remap_pending,
    ),
    DcgmField(
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "Whether a row remap failed (0 or 1).",
        lambda of: of.row_remap_failed,
    ),
    DcgmField("DCGM_FI_DEV_MIG_MODE", "Whether MIG is enabled (0 or 1).", lambda of: of.mig_enabled),
    DcgmField(
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
        "Why the clocks are throttled (bits), without the idle bit.",
        _clock_events,
    ),
)


class DeviceCollector(Collector):
    """Collects one series per device, field and holder.

    Args:
        snapshot: Returns the sampler's snapshot.
        holders: Returns the containers that hold each device.
        node_name: Value of the label `hostname`.
        stale_seconds: Samples older than this are left out.
    """

    def __init__(
        self, snapshot: Callable[[], NodeSnapshot], holders: Callable[[], Holders], node_name: str, stale_seconds: float
    ) -> None:
        self._snapshot = snapshot
        self._holders = holders
        self._node_name = node_name
        self._stale_seconds = stale_seconds

    def collect(self) -> Iterable[Metric]:
        snapshot, holders = self._snapshot(), self._holders()
        labeled = [(device, list(self._label_sets(device, snapshot, holders))) for device in snapshot.devices]
        for field in DCGM_FIELDS:
            family = Metric(field.name, field.help, field.kind)
            for device, label_sets in labeled:
                value = field.value(device.sample) if device.sample is not None and self._fresh(device) else None
                if value is not None:
                    for labels in label_sets:
                        family.add_sample(field.name, labels, value)
            yield family
        yield self._last_xid(labeled)

    def _last_xid(self, labeled: list[tuple[DeviceSnapshot, list[dict[str, str]]]]) -> Metric:
        family = Metric("DCGM_FI_DEV_XID_ERRORS", "Last XID error since the agent started (code).", GAUGE)
        for device, label_sets in labeled:
            xids = [event for event in device.events if event.kind == "XidError"]
            if xids:
                last = max(xids, key=lambda event: event.last_at)
                for labels in label_sets:
                    family.add_sample(family.name, labels, last.code)
        return family

    def _fresh(self, device: DeviceSnapshot) -> bool:
        return device.sample_age_seconds is not None and device.sample_age_seconds <= self._stale_seconds

    def _label_sets(self, device: DeviceSnapshot, snapshot: NodeSnapshot, holders: Holders) -> Iterator[dict[str, str]]:
        """Returns one label set per holder, shared by all fields: a shared device has thousands of series."""
        info = device.info
        unheld: tuple[HoldingContainer | None, ...] = (None,)
        for holder in holders.get(info.uuid) or unheld:
            held = ("", "", "") if holder is None else (holder.key.namespace, holder.key.pod, holder.key.container)
            values = (
                str(info.index),
                info.uuid,
                info.pci_bus_id or "",
                f"nvidia{info.index}",
                info.model,
                self._node_name,
                snapshot.driver_version or "",
                *held,
            )
            yield dict(zip(LABELS, values, strict=True))
