"""What there is, what is free, and what is broken."""

from gpufleet_testing.dashboards.layout import Dashboard, Target, lines, stat, table
from gpufleet_testing.dashboards.queries import CLUSTER, VARIABLES, devices, of_devices, total

_FREE = devices("Available", "Free")
_NODE = f'{CLUSTER},hostname=~"$node"'


def _with(label: str, values: str) -> str:
    return f'{devices().removesuffix("}")},{label}=~"{values}"}}'


FLEET = Dashboard(
    uid="gpufleet-fleet",
    title="gpufleet / Fleet",
    description="GPUs by model, use and health, as the operator counts them.",
    variables=(VARIABLES["cluster"], VARIABLES["model"], VARIABLES["node"]),
    rows=(
        (
            "Overview",
            (
                stat("GPUs", "All GPUs that agents report.", total(devices())),
                stat(
                    "Free GPUs",
                    "Healthy GPUs that no container holds, no reservation names and no process uses, on nodes on which "
                    "pods are placed.",
                    total(_FREE),
                ),
                stat(
                    "GPUs in use",
                    "GPUs that a container holds, as a whole or a share of it, or that are reserved for one.",
                    total(_with("occupation", "Exclusive|Shared")),
                ),
                stat(
                    "Unhealthy GPUs",
                    "GPUs with a fault. No pod is placed on them.",
                    total(devices("Unhealthy")),
                    thresholds=((1, "red"),),
                    runbook="devices.md#gpuunhealthy",
                ),
                stat(
                    "Out of service",
                    "GPUs that an administrator has cordoned, or that the agent withholds.",
                    total(_with("availability", "Cordoned|Withheld")),
                    thresholds=((1, "orange"),),
                ),
                stat(
                    "GPUs on unusable nodes",
                    "GPUs of nodes whose telemetry is stale or that are not Ready. No pod is placed there.",
                    total(_with("availability", "Stale|NodeNotReady")),
                    thresholds=((1, "red"),),
                    runbook="agents.md#telemetrystale",
                ),
            ),
        ),
        (
            "Capacity",
            (
                table(
                    "GPUs by model",
                    "All and free GPUs, and the most free ones on one node: a replica that needs more of them waits.",
                    ["model"],
                    Target(f"sum by (model) ({devices()})", "GPUs"),
                    Target(f"sum by (model) ({_FREE})", "free"),
                    Target(f"max by (model) (sum by (cluster, node, model) ({_FREE}))", "free on one node"),
                ),
                table(
                    "GPUs by model and health",
                    "Why GPUs are not available: see the reference of metrics for the values.",
                    ["model", "availability"],
                    Target(f"sum by (model, availability) ({devices()})", "GPUs"),
                ),
                lines(
                    "Use",
                    "GPUs by what uses them. Foreign: a process that belongs to no pod.",
                    Target(f"sum by (occupation) ({devices()})", "{{occupation}}"),
                ),
                lines(
                    "Availability",
                    "GPUs by whether a pod can get them when nothing uses them.",
                    Target(f"sum by (availability) ({devices()})", "{{availability}}"),
                ),
                table(
                    "Free GPUs by node",
                    "Nodes without a free GPU are not listed.",
                    ["node", "model"],
                    Target(f"sum by (node, model) ({_FREE}) > 0", "free"),
                ),
                lines(
                    "Cordoned GPUs by node",
                    "GPUs that an administrator has taken out of service.",
                    Target(
                        f'sum by (node) (gpufleet_operator_cordoned_devices{{{CLUSTER},node=~"$node"}})', "{{node}}"
                    ),
                ),
            ),
        ),
        (
            "Load",
            (
                lines(
                    "Mean utilization by model",
                    "Mean compute utilization of all GPUs of a model, free ones included.",
                    Target(f"avg by (model) ({of_devices('DCGM_FI_DEV_GPU_UTIL')})", "{{model}}"),
                    unit="percent",
                    maximum=100,
                ),
                lines(
                    "Power by model",
                    "Power draw of all GPUs of a model.",
                    Target(f"sum by (model) ({of_devices('DCGM_FI_DEV_POWER_USAGE')})", "{{model}}"),
                    unit="watt",
                ),
                lines(
                    "Memory in use by model",
                    "Part of the memory of all GPUs of a model that is in use.",
                    Target(
                        f"sum by (model) ({of_devices('DCGM_FI_DEV_FB_USED')}) "
                        f"/ sum by (model) ({of_devices('DCGM_FI_DEV_FB_TOTAL')})",
                        "{{model}}",
                    ),
                    unit="percentunit",
                    maximum=1,
                ),
                lines(
                    "Hottest GPUs",
                    "The ten GPUs with the highest temperature.",
                    Target(f"topk(10, {of_devices('DCGM_FI_DEV_GPU_TEMP')})", "{{hostname}} GPU {{gpu}}"),
                    unit="celsius",
                    thresholds=((83, "orange"), (90, "red")),
                ),
            ),
        ),
        (
            "Health",
            (
                table(
                    "Faults",
                    "Active faults: these GPUs are unhealthy.",
                    ["hostname", "gpu", "UUID", "code"],
                    Target(f"max by (hostname, gpu, UUID, code) (gpufleet_agent_device_fault{{{_NODE}}})", "active"),
                    runbook="devices.md#gpuunhealthy",
                ),
                table(
                    "Warnings",
                    "Active warnings: they do not affect placement.",
                    ["hostname", "gpu", "UUID", "code"],
                    Target(f"max by (hostname, gpu, UUID, code) (gpufleet_agent_device_warning{{{_NODE}}})", "active"),
                    runbook="devices.md#rowremappending",
                ),
            ),
        ),
    ),
)
