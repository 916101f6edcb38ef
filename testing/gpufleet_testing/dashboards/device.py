"""One device: readings, health, and the containers that hold it."""

from gpufleet_testing.dashboards.layout import Dashboard, Panel, Target, lines, stat, table
from gpufleet_testing.dashboards.queries import CLUSTER, VARIABLES

_ONE = f'{CLUSTER},UUID="$device"'


def _reading(metric: str) -> str:
    return f"max({metric}{{{_ONE}}})"


def _growth(metric: str) -> str:
    return f"max(increase({metric}{{{_ONE}}}[$__rate_interval]))"


def _readings(title: str, description: str, unit: str, *named: tuple[str, str], maximum: float | None = None) -> Panel:
    """Builds a diagram of metrics and their names."""
    targets = (Target(_reading(metric), name) for metric, name in named)
    return lines(title, description, *targets, unit=unit, maximum=maximum)


DEVICE = Dashboard(
    uid="gpufleet-device",
    title="gpufleet / Device",
    description="One GPU or MIG partition. A value that the hardware does not report has no series.",
    variables=tuple(VARIABLES[name] for name in ("cluster", "node", "device")),
    rows=(
        (
            "Now",
            (
                stat(
                    "Healthy",
                    "1 while the device has no fault.",
                    _reading("gpufleet_agent_device_healthy"),
                    runbook="devices.md#gpuunhealthy",
                ),
                stat(
                    "Containers",
                    "Containers that hold the device, or a share of it.",
                    f"count(gpufleet_device_holder{{{_ONE}}}) or vector(0)",
                ),
                stat(
                    "Processes", "Processes with a context on the device.", _reading("gpufleet_agent_device_processes")
                ),
                stat(
                    "Age of the last sample",
                    "Above a few seconds the driver does not answer.",
                    _reading("gpufleet_agent_sample_age_seconds"),
                    unit="s",
                    thresholds=((10, "orange"), (90, "red")),
                ),
                stat(
                    "XID",
                    "XID of the active fault or warning, 0 without one.",
                    _reading("DCGM_FI_DEV_XID_ERRORS"),
                    thresholds=((1, "red"),),
                    runbook="devices.md#xidcritical",
                ),
                table(
                    "Holders",
                    "Containers that hold the device, and the memory promised to them.",
                    ["namespace", "pod", "container", "hostname"],
                    Target(
                        f"max by (namespace, pod, container, hostname) (gpufleet_device_holder{{{_ONE}}})",
                        "memory promised",
                    ),
                    unit="bytes",
                ),
                table(
                    "Faults and warnings",
                    "What is active now.",
                    ["code"],
                    Target(f"max by (code) (gpufleet_agent_device_fault{{{_ONE}}})", "fault"),
                    Target(f"max by (code) (gpufleet_agent_device_warning{{{_ONE}}})", "warning"),
                    runbook="devices.md#gpuunhealthy",
                ),
            ),
        ),
        (
            "Readings",
            (
                _readings(
                    "Utilization",
                    "Compute, memory bandwidth, encoder and decoder.",
                    "percent",
                    ("DCGM_FI_DEV_GPU_UTIL", "compute"),
                    ("DCGM_FI_DEV_MEM_COPY_UTIL", "memory bandwidth"),
                    ("DCGM_FI_DEV_ENC_UTIL", "encoder"),
                    ("DCGM_FI_DEV_DEC_UTIL", "decoder"),
                    maximum=100,
                ),
                _readings(
                    "Memory",
                    "Memory in use and reserved by the driver, and the total.",
                    "decmbytes",
                    ("DCGM_FI_DEV_FB_USED", "used"),
                    ("DCGM_FI_DEV_FB_RESERVED", "reserved"),
                    ("DCGM_FI_DEV_FB_TOTAL", "total"),
                ),
                lines(
                    "Temperature",
                    "GPU and memory.",
                    Target(_reading("DCGM_FI_DEV_GPU_TEMP"), "GPU"),
                    Target(_reading("DCGM_FI_DEV_MEMORY_TEMP"), "memory"),
                    unit="celsius",
                    thresholds=((83, "orange"), (90, "red")),
                ),
                _readings(
                    "Power",
                    "Power draw and the lowest limit that applies.",
                    "watt",
                    ("DCGM_FI_DEV_POWER_USAGE", "draw"),
                    ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "limit"),
                ),
                _readings(
                    "Clocks",
                    "SM and memory clocks.",
                    "rotmhz",
                    ("DCGM_FI_DEV_SM_CLOCK", "SM"),
                    ("DCGM_FI_DEV_MEM_CLOCK", "memory"),
                ),
                lines(
                    "Throttle reasons",
                    "1 while the clocks are throttled for the reason.",
                    Target(f"max by (reason) (gpufleet_agent_device_throttled{{{_ONE}}}) > 0", "{{reason}}"),
                ),
            ),
        ),
        (
            "Errors",
            (
                lines(
                    "Events",
                    "Events that the driver reported, by kind and code: XIDs, ECC errors.",
                    Target(
                        "sum by (kind, code) "
                        f"(increase(gpufleet_agent_device_events_total{{{_ONE}}}[$__rate_interval])) > 0",
                        "{{kind}} {{code}}",
                    ),
                    runbook="devices.md#xidcritical",
                ),
                lines(
                    "Memory errors",
                    "Corrected and uncorrected errors of the memory.",
                    Target(_growth("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"), "corrected"),
                    Target(_growth("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"), "uncorrected"),
                ),
                _readings(
                    "Remapped rows",
                    "Memory rows that were replaced, and whether a replacement waits for a reset or failed.",
                    "short",
                    ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "after correctable errors"),
                    ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "after uncorrectable errors"),
                    ("DCGM_FI_DEV_ROW_REMAP_PENDING", "pending"),
                    ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "failed"),
                ),
                lines(
                    "PCIe retries",
                    "Retries since the last value.",
                    Target(_growth("DCGM_FI_DEV_PCIE_REPLAY_COUNTER"), "retries"),
                ),
            ),
        ),
        (
            "Containers",
            (
                lines(
                    "Memory by container",
                    "Memory of the device that the processes of each container use.",
                    Target(
                        f"max by (namespace, pod, container) (gpufleet_container_gpu_memory_bytes{{{_ONE}}})",
                        "{{namespace}}/{{pod}} {{container}}",
                    ),
                    unit="bytes",
                ),
                lines(
                    "Utilization by container",
                    "Part of the time in which the processes of each container ran on the device.",
                    Target(
                        f"max by (namespace, pod, container) (gpufleet_container_gpu_utilization_ratio{{{_ONE}}})",
                        "{{namespace}}/{{pod}} {{container}}",
                    ),
                    unit="percentunit",
                    maximum=1,
                ),
            ),
        ),
    ),
)
