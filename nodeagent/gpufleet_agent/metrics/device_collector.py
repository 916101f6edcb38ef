"""Device readings under DCGM's names and labels, so that dashboards and alerts for dcgm-exporter keep working.

Each device has one series per field, so that sums over devices are correct for any holders. Built without I/O at each
scrape: devices and pods that are gone have no series, nor have values that the hardware does not report.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gpufleet_agent.devices.base import Sample, ThrottleReason
from gpufleet_agent.metrics.options import MetricsOptions, PodLabels
from gpufleet_agent.podresources.holdings import Holders
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, NodeSnapshot

MILLI = 1000

GAUGE = "gauge"
COUNTER = "unknown"
"""The library has no counter whose name lacks `_total`; `exposition` writes the type."""

_XID = re.compile(r"XID (?P<code>[0-9]+)")
"""In the message of a fault or warning, which also those have that an earlier process saved."""

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
    return max(0, sample.memory_total_mib - sample.memory_used_mib - (sample.memory_reserved_mib or 0))


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
        "DCGM_FI_DEV_POWER_MGMT_LIMIT",
        "Requested power limit (in W).",
        lambda of: _watts(of.requested_power_limit_milliwatts),
    ),
    DcgmField(
        "DCGM_FI_DEV_ENFORCED_POWER_LIMIT",
        "Enforced power limit, the lowest of all that apply (in W).",
        lambda of: _watts(of.power_limit_milliwatts),
    ),
    DcgmField(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Energy consumed since the driver was loaded (in mJ).",
        lambda of: of.energy_millijoules,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        "PCIe retries since the driver was loaded (number).",
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
    DcgmField("DCGM_FI_DEV_FB_FREE", "Framebuffer memory that is neither used nor reserved (in MiB).", _free),
    DcgmField(
        "DCGM_FI_DEV_FB_RESERVED",
        "Framebuffer memory reserved by the driver (in MiB).",
        lambda of: of.memory_reserved_mib,
    ),
    DcgmField(
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        "Corrected memory errors since the driver was loaded (number).",
        lambda of: of.ecc_corrected,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "Uncorrected memory errors since the driver was loaded (number).",
        lambda of: of.ecc_uncorrected,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Memory rows remapped after correctable errors (number).",
        lambda of: of.remapped_correctable,
        COUNTER,
    ),
    DcgmField(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Memory rows remapped after uncorrectable errors (number).",
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
    """Collects one series per device and field.

    Args:
        snapshot: Returns the sampler's snapshot.
        holders: Returns the containers that hold each device.
        node_name: Value of the label with the node's name.
        stale_seconds: Samples older than this are left out.
        options: Which series and labels there are.
    """

    def __init__(
        self,
        snapshot: Callable[[], NodeSnapshot],
        holders: Callable[[], Holders],
        node_name: str,
        stale_seconds: float,
        options: MetricsOptions = MetricsOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._snapshot = snapshot
        self._holders = holders
        self._node_name = node_name
        self._stale_seconds = stale_seconds
        self._options = options

    def collect(self) -> Iterable[Metric]:
        if not self._options.dcgm_names:
            return
        snapshot, holders = self._snapshot(), self._holders()
        # Shared by all fields, because there are many.
        described = [(device, self._describe(device, snapshot)) for device in snapshot.devices]
        labeled = [(device, labels | self._pod(device, holders)) for device, labels in described]
        for field in DCGM_FIELDS:
            family = Metric(field.name, field.help, field.kind)
            for device, labels in labeled:
                value = field.value(device.sample) if device.sample is not None and self._fresh(device) else None
                if value is not None:
                    family.add_sample(field.name, labels, value)
            yield family
        yield _xids(described)

    def _fresh(self, device: DeviceSnapshot) -> bool:
        return device.sample_age_seconds is not None and device.sample_age_seconds <= self._stale_seconds

    def _describe(self, device: DeviceSnapshot, snapshot: NodeSnapshot) -> dict[str, str]:
        info = device.info
        labels = {
            "gpu": str(info.index),
            "UUID": info.uuid,
            "pci_bus_id": info.pci_bus_id or "",
            "device": f"nvidia{info.index}",
            "modelName": info.model,
            self._options.hostname_label.value: self._node_name,
            "DCGM_FI_DRIVER_VERSION": snapshot.driver_version or "",
        }
        if info.parent is None:
            return labels
        instance = "" if info.gpu_instance is None else str(info.gpu_instance)
        return {**labels, "GPU_I_PROFILE": info.profile or "", "GPU_I_ID": instance}

    def _pod(self, device: DeviceSnapshot, holders: Holders) -> dict[str, str]:
        """Returns the labels of the only holder of a device, if it holds the whole device."""
        held = holders.get(device.info.uuid, ())
        if self._options.pod_labels is PodLabels.NONE or len(held) != 1 or held[0].shared:
            return {}
        key = held[0].key
        return {"namespace": key.namespace, "pod": key.pod, "container": key.container}


def _xids(described: list[tuple[DeviceSnapshot, dict[str, str]]]) -> Metric:
    """Returns the active XIDs, without pods: the fault may be older than the holder."""
    family = Metric("DCGM_FI_DEV_XID_ERRORS", "XID of the active fault or warning, 0 without one (code).", GAUGE)
    for device, labels in described:
        family.add_sample(family.name, labels, _active_xid(device))
    return family


def _active_xid(device: DeviceSnapshot) -> int:
    """Returns the XID that makes the device unhealthy, or the one that it is warned of; 0: neither."""
    for reason in (*device.health.reasons, *device.health.warnings):
        found = _XID.match(reason.message) if reason.code.startswith("Xid") else None
        if found is not None:
            return int(found["code"])
    return 0
