"""Which namespaces and containers hold GPUs, and which of them use them."""

from gpufleet_testing.dashboards.layout import Dashboard, Target, lines, stat, table
from gpufleet_testing.dashboards.queries import CLUSTER, IDLE, VARIABLES, holders, with_holders

_GPUS = f"count by (cluster, UUID, namespace) ({holders()})"
_CONTAINER = ("namespace", "pod", "container", "hostname", "gpu", "model")
_LABELS = ", ".join(_CONTAINER)
_GPUS_BY_MODEL = f"count by (cluster, UUID, namespace, model) ({holders()})"
_UTILIZATION = f"avg by (namespace) (max by (cluster, UUID, namespace) ({with_holders('DCGM_FI_DEV_GPU_UTIL')}))"
_SHARES = f'{{{CLUSTER},hostname=~"$node",namespace=~"$namespace"}}'
_OVERUSED = f"gpufleet_agent_share_memory_overused{_SHARES}"


def _shares(what: str) -> str:
    return f"max by (namespace, pod, container, UUID) (gpufleet_agent_share_memory_{what}_bytes{_SHARES})"


TENANTS = Dashboard(
    uid="gpufleet-tenants",
    title="gpufleet / Tenants",
    description="Which namespaces and containers hold GPUs, and which of them use them.",
    variables=tuple(VARIABLES[name] for name in ("cluster", "namespace", "model", "node")),
    rows=(
        (
            "Overview",
            (
                stat(
                    "GPUs held",
                    "GPUs that at least one container holds.",
                    f"count(count by (cluster, UUID) ({holders()})) or vector(0)",
                ),
                stat(
                    "Containers",
                    "Containers that hold a GPU or a share of one.",
                    f"count(count by (cluster, namespace, pod, container) ({holders()})) or vector(0)",
                ),
                stat(
                    "GPUs held and idle",
                    "GPUs that a container holds and that nothing has used in 30 minutes.",
                    f"count(count by (cluster, UUID) ({IDLE})) or vector(0)",
                    thresholds=((1, "orange"),),
                    runbook="workloads.md#heldbutidle",
                ),
                stat(
                    "Containers over promise",
                    "Containers that use more memory of a shared GPU than they were promised.",
                    f"sum(max by (cluster, UUID, namespace, pod, container) ({_OVERUSED})) or vector(0)",
                    thresholds=((1, "red"),),
                    runbook="devices.md#memoryoveruse",
                ),
            ),
        ),
        (
            "Namespaces",
            (
                table(
                    "GPUs by namespace",
                    "GPUs held, how many of them were idle for 30 minutes, and their mean utilization. A shared GPU "
                    "counts for each namespace that shares it.",
                    ["namespace"],
                    Target(f"count by (namespace) ({_GPUS})", "GPUs"),
                    Target(f"count by (namespace) (count by (cluster, UUID, namespace) ({IDLE}))", "idle"),
                    Target(
                        _UTILIZATION,
                        "utilization",
                        "percent",
                    ),
                    Target(f"sum by (namespace) ({holders()})", "memory promised", "bytes"),
                ),
                table(
                    "GPUs by namespace and model",
                    "GPUs held, by model.",
                    ["namespace", "model"],
                    Target(
                        f"count by (namespace, model) ({_GPUS_BY_MODEL})",
                        "GPUs",
                    ),
                ),
                lines(
                    "GPUs held by namespace",
                    "GPUs held, by namespace.",
                    Target(f"count by (namespace) ({_GPUS})", "{{namespace}}"),
                ),
                lines(
                    "Utilization of held GPUs",
                    "Mean compute utilization of the GPUs that a namespace holds.",
                    Target(
                        _UTILIZATION,
                        "{{namespace}}",
                    ),
                    unit="percent",
                    maximum=100,
                ),
            ),
        ),
        (
            "Containers",
            (
                table(
                    "Containers that hold GPUs",
                    "Memory promised to each container and used by it in bytes, and the utilization of its GPU.",
                    _CONTAINER,
                    Target(f"max by ({_LABELS}) ({holders()})", "memory promised", "bytes"),
                    Target(
                        f"max by ({_LABELS}) ({holders('gpufleet_container_gpu_memory_bytes')})", "memory used", "bytes"
                    ),
                    Target(f"max by ({_LABELS}) ({with_holders('DCGM_FI_DEV_GPU_UTIL')})", "utilization", "percent"),
                    width=24,
                ),
                table(
                    "Held and idle",
                    "Containers that hold a GPU that nothing has used in 30 minutes.",
                    _CONTAINER,
                    Target(f"max by ({_LABELS}) ({IDLE})", "memory promised", "bytes"),
                    width=24,
                    runbook="workloads.md#heldbutidle",
                ),
                lines(
                    "Memory used / promised",
                    "Part of the promised memory of a shared GPU that a container uses.",
                    Target(
                        f"{_shares('used')} / ({_shares('promised')} > 0)",
                        "{{namespace}}/{{pod}} {{container}}",
                    ),
                    unit="percentunit",
                    thresholds=((1, "red"),),
                    runbook="devices.md#memoryoveruse",
                ),
                lines(
                    "Utilization by container",
                    "Part of the time in which the processes of a container ran on its GPU, if the driver reports it.",
                    Target(
                        f"max by ({_LABELS}) ({holders('gpufleet_container_gpu_utilization_ratio')})",
                        "{{namespace}}/{{pod}} {{container}}",
                    ),
                    unit="percentunit",
                    maximum=1,
                ),
            ),
        ),
    ),
)
