"""Series with which each alert fires and resolves. Values are one minute apart, in promtool's notation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_AGENT = 'job="gpufleet-agent-metrics",instance="10.0.0.1:9400",namespace="gpufleet-system",pod="gpufleet-agent-abcde"'
_ON_NODE = f'{_AGENT},node="node-1"'
_WITHOUT_GPU = f'{_AGENT.replace("0.1", "0.9")},node="node-9"'
_ALLOCATIONS = f"gpufleet_agent_allocations_total{{{_ON_NODE}"
_OPERATOR = (
    'job="gpufleet-operator-metrics",instance="10.0.0.2:8080",namespace="gpufleet-system",pod="gpufleet-operator-x"'
)
_OPERATOR_WITHOUT_NAMESPACE = 'job="gpufleet-operator-metrics",instance="10.0.0.2:8080",pod="gpufleet-operator-x"'
_DEVICE = 'gpu="3",UUID="GPU-3",hostname="node-1"'
_HOLDER = (
    'job="gpufleet-agent-metrics",instance="10.0.0.1:9400",node="node-1",'
    'hostname="node-1",namespace="ml",pod="train-0",container="main"'
)
_JOB = {"namespace": "gpufleet-system", "job": "gpufleet-operator-metrics"}
_OF_DEVICE = {"hostname": "node-1", "gpu": "3", "UUID": "GPU-3"}
_OF_CONTAINER = {
    "hostname": "node-1",
    "UUID": "GPU-3",
    "namespace": "ml",
    "pod": "train-0",
    "container": "main",
}


@dataclass(frozen=True, slots=True)
class AlertCase:
    """An alert that fires once.

    Args:
        alert: Its name.
        series: Values of each series.
        quiet: Last minute before it that is checked: the alert must not fire yet.
        fires: Minute in which it must fire.
        ends: Minute in which it must not fire any more.
        labels: Of the alert, without those that the rule adds.
        value: As `$value` and its functions print it.
        name: Of the case, if an alert has several.
    """

    alert: str
    series: Mapping[str, str]
    quiet: int
    fires: int
    ends: int
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    name: str = ""


CASES = (
    AlertCase(
        "GPUUnhealthy",
        {
            f"gpufleet_agent_device_healthy{{{_DEVICE},{_ON_NODE}}}": "1x4 0x10 1x10",
            f'gpufleet_agent_device_healthy{{gpu="4",UUID="GPU-4",hostname="node-1",{_ON_NODE}}}': "1x26",
        },
        quiet=9,
        fires=11,
        ends=17,
        labels=_OF_DEVICE,
    ),
    AlertCase(
        "XidCritical",
        {
            f'gpufleet_agent_device_fault{{{_DEVICE},{_ON_NODE},code="XidError"}}': "_x5 1x5 stale",
            f'gpufleet_agent_device_fault{{{_DEVICE},{_ON_NODE},code="Unresponsive"}}': "1x20",
        },
        quiet=4,
        fires=5,
        ends=12,
        labels=_OF_DEVICE,
    ),
    AlertCase(
        "RowRemapPending",
        {
            f'gpufleet_agent_device_warning{{{_DEVICE},{_ON_NODE},code="RowRemapPending"}}': "1x20 stale",
            f'gpufleet_agent_device_warning{{{_DEVICE},{_ON_NODE},code="HwSlowdown"}}': "1x30",
        },
        quiet=14,
        fires=16,
        ends=22,
        labels={**_OF_DEVICE, "code": "RowRemapPending"},
    ),
    AlertCase(
        "MemoryOveruse",
        {f'gpufleet_agent_share_memory_overused{{gpu="3",UUID="GPU-3",{_HOLDER}}}': "0x4 1x15 0x10"},
        quiet=14,
        fires=16,
        ends=21,
        labels=_OF_CONTAINER,
    ),
    AlertCase(
        "HeldButIdle",
        {
            f'gpufleet_device_holder{{UUID="GPU-3",{_HOLDER}}}': "80e9x300",
            f"DCGM_FI_DEV_GPU_UTIL{{{_DEVICE},{_ON_NODE}}}": "50x30 0x200 60x30",
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="4",UUID="GPU-4",hostname="node-1",{_ON_NODE}}}': "0x300",
        },
        quiet=179,
        fires=183,
        ends=233,
        labels=_OF_CONTAINER,
    ),
    AlertCase(
        "AgentDown",
        {f"up{{{_ON_NODE}}}": "1x4 0x10 1x10", f"up{{{_OPERATOR}}}": "1x30"},
        quiet=9,
        fires=11,
        ends=16,
        labels={
            "job": "gpufleet-agent-metrics",
            "instance": "10.0.0.1:9400",
            "namespace": "gpufleet-system",
            "pod": "gpufleet-agent-abcde",
            "node": "node-1",
        },
    ),
    AlertCase(
        "TelemetryStale",
        {
            f'gpufleet_operator_telemetry_state{{{_OPERATOR},node="node-1",state="Fresh"}}': "1x4 stale",
            f'gpufleet_operator_telemetry_state{{{_OPERATOR},node="node-1",state="Stale"}}': "_x5 1x9 stale",
            f'gpufleet_operator_telemetry_state{{{_OPERATOR},node="node-2",state="NoDriver"}}': "1x30",
        },
        quiet=6,
        fires=8,
        ends=16,
        labels={"node": "node-1", "state": "Stale"},
    ),
    AlertCase(
        "PluginNotRegistered",
        {
            f'gpufleet_agent_registered{{{_ON_NODE},resource="gpufleet.dev/gpu"}}': "1x4 0x10 1x10",
            f'gpufleet_agent_devices{{{_ON_NODE},state="Healthy"}}': "8x30",
            f'gpufleet_agent_registered{{{_WITHOUT_GPU},resource="gpufleet.dev/gpu"}}': "0x30",
            f'gpufleet_agent_devices{{{_WITHOUT_GPU},state="Healthy"}}': "0x30",
        },
        quiet=9,
        fires=11,
        ends=16,
        labels={"node": "node-1", "instance": "10.0.0.1:9400", "resource": "gpufleet.dev/gpu"},
    ),
    AlertCase(
        "HighRejectionRate",
        {
            f'{_ALLOCATIONS},outcome="Rejected",reason="DeviceHeld"}}': "0x5 0+2x10 20x60",
            f'{_ALLOCATIONS},outcome="Managed",reason=""}}': "0+1x80",
        },
        quiet=8,
        fires=20,
        ends=50,
        labels={"node": "node-1"},
    ),
    AlertCase(
        "FaultFileNotCurrent",
        {f'gpufleet_agent_checkpoint_current{{{_ON_NODE},path="/var/lib/gpufleet/faults.json"}}': "1x4 0x15 1x10"},
        quiet=14,
        fires=16,
        ends=21,
        labels={"node": "node-1", "instance": "10.0.0.1:9400", "path": "/var/lib/gpufleet/faults.json"},
    ),
    AlertCase(
        "OperatorDown",
        {f"up{{{_OPERATOR}}}": "1x4 0x10 1x10", f"up{{{_ON_NODE}}}": "1x30"},
        quiet=9,
        fires=11,
        ends=16,
        labels=_JOB,
        name="not scraped",
    ),
    AlertCase(
        "OperatorDown",
        {f"up{{{_OPERATOR}}}": "1x4 stale _x10 1x10", f"up{{{_ON_NODE}}}": "1x30"},
        quiet=9,
        fires=12,
        ends=17,
        name="without a target",
    ),
    AlertCase(
        "OperatorPassStuck",
        {f'gpufleet_operator_reconcile_duration_seconds_count{{{_OPERATOR},step="decide"}}': "0+6x9 54x20 54+6x10"},
        quiet=18,
        fires=21,
        ends=33,
        labels=_JOB,
    ),
    AlertCase(
        "OperatorPassStuck",
        {f'gpufleet_operator_reconcile_duration_seconds_count{{{_OPERATOR},step="decide"}}': "0x20 0+6x10"},
        quiet=5,
        fires=8,
        ends=24,
        labels=_JOB,
        name="since its start",
    ),
    AlertCase(
        "TelemetryOutage",
        {f"gpufleet_operator_telemetry_outage{{{_OPERATOR}}}": "0x4 1x15 0x10"},
        quiet=9,
        fires=11,
        ends=21,
        labels=_JOB,
    ),
    AlertCase(
        "ReadsDenied",
        {f'gpufleet_operator_denied_reads{{{_OPERATOR},resource="pods"}}': "0x4 1x20 0x10"},
        quiet=14,
        fires=16,
        ends=31,
        labels={**_JOB, "resource": "pods"},
    ),
    AlertCase(
        "UnexpectedErrors",
        {f'gpufleet_operator_unexpected_errors_total{{{_OPERATOR},kind="template"}}': "0x9 1x40"},
        quiet=9,
        fires=11,
        ends=27,
        labels={**_JOB, "kind": "template"},
        name="of the operator",
    ),
    AlertCase(
        "UnexpectedErrors",
        {
            f'gpufleet_operator_decode_errors_total{{{_OPERATOR},kind="telemetry"}}': "0x40",
            f'gpufleet_agent_decode_errors_total{{{_ON_NODE},part="Object"}}': "0x9 1x40",
        },
        quiet=9,
        fires=11,
        ends=27,
        labels={"namespace": "gpufleet-system", "job": "gpufleet-agent-metrics", "part": "Object"},
        name="of an agent",
    ),
    AlertCase(
        "WorkloadUnplaced",
        {
            f'gpufleet_operator_workload_waiting_seconds{{{_OPERATOR_WITHOUT_NAMESPACE},namespace="ml",'
            'workload="train",reason="NoDevicesAvailable"}': "0+60x40 stale",
        },
        quiet=30,
        fires=31,
        ends=42,
        labels={"namespace": "ml", "workload": "train", "reason": "NoDevicesAvailable"},
        value="31m 0s",
    ),
    AlertCase(
        "GatedPodsWithoutWorkload",
        {
            f'gpufleet_operator_gated_pods{{{_OPERATOR},reason="GPUWorkload"}}': "2x20 stale",
            f'gpufleet_operator_gated_pods{{{_OPERATOR},reason="Devices"}}': "5x40",
        },
        quiet=14,
        fires=16,
        ends=22,
        value="2",
    ),
    AlertCase(
        "DeviceMismatch",
        {
            f'gpufleet_operator_pods_removed_total{{{_OPERATOR},reason="DeviceMismatch"}}': "0x9 1x90",
            f'gpufleet_operator_pods_removed_total{{{_OPERATOR},reason="SurplusPod"}}': "0+1x99",
        },
        quiet=9,
        fires=11,
        ends=72,
    ),
)
