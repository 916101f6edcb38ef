"""What waits for GPUs, since when, and why."""

from gpufleet_testing.dashboards.layout import Dashboard, Target, lines, stat, table
from gpufleet_testing.dashboards.queries import CLUSTER, VARIABLES, quantile

_WAITING = f'gpufleet_operator_workload_waiting_seconds{{{CLUSTER},namespace=~"$namespace"}}'
_WAITING_WORKLOADS = f"max by (cluster, namespace, workload, reason) ({_WAITING})"
_GATED = f"gpufleet_operator_gated_pods{{{CLUSTER}"
_RESERVATIONS = f"gpufleet_operator_reservations_total{{{CLUSTER}}}"
_REMOVED = f"gpufleet_operator_pods_removed_total{{{CLUSTER}}}"
_BUCKETS = f"gpufleet_operator_placement_duration_seconds_bucket{{{CLUSTER}}}"


def _latency(part: float) -> Target:
    return Target(quantile(part, _BUCKETS), f"{part:.0%}")


QUEUE = Dashboard(
    uid="gpufleet-queue",
    title="gpufleet / Queue",
    description="What waits for GPUs, since when, and why.",
    variables=(VARIABLES["cluster"], VARIABLES["waiting"]),
    rows=(
        (
            "Overview",
            (
                stat(
                    "Workloads waiting",
                    "GPUWorkloads of which a replica has no devices; at most 500 are exported.",
                    f"count({_WAITING_WORKLOADS}) or vector(0)",
                    runbook="workloads.md#workloadunplaced",
                ),
                stat(
                    "Longest wait",
                    "Time since when the oldest of them waits.",
                    f"max({_WAITING}) or vector(0)",
                    unit="s",
                    thresholds=((1800, "red"),),
                    runbook="workloads.md#workloadunplaced",
                ),
                stat(
                    "Workloads without fitting devices",
                    "GPUWorkloads for which the last pass found no devices, of all namespaces.",
                    f"max(gpufleet_operator_unplaced_workloads{{{CLUSTER}}}) or vector(0)",
                ),
                stat(
                    "Gated pods",
                    "Pods with the scheduling gate of gpufleet, of all namespaces.",
                    f"sum(max by (cluster, reason) ({_GATED}}})) or vector(0)",
                ),
                stat(
                    "Gated pods without a GPUWorkload",
                    "Their gate is never removed.",
                    f'sum(max by (cluster) ({_GATED},reason="GPUWorkload"}})) or vector(0)',
                    thresholds=((1, "red"),),
                    runbook="workloads.md#gatedpodswithoutworkload",
                ),
            ),
        ),
        (
            "Waiting",
            (
                table(
                    "Waiting workloads",
                    "How long each workload waits, and the reason of its condition Ready. See `kubectl gpufleet "
                    "explain NAME`.",
                    ["cluster", "namespace", "workload", "reason"],
                    Target(f"sort_desc({_WAITING_WORKLOADS})", "waiting"),
                    unit="s",
                    width=24,
                    thresholds=((1800, "red"),),
                    runbook="workloads.md#workloadunplaced",
                ),
                lines(
                    "Waiting workloads by reason",
                    "By the reason of the condition Ready.",
                    Target(f"count by (reason) ({_WAITING_WORKLOADS})", "{{reason}}"),
                ),
                lines(
                    "Gated pods by reason",
                    "What the pods wait for; `Nothing` is released in the same pass.",
                    Target(f"sum by (reason) (max by (cluster, reason) ({_GATED}}}))", "{{reason}}"),
                ),
            ),
        ),
        (
            "Placement",
            (
                lines(
                    "Time to placement",
                    "Time from the creation of a pod to the removal of its gate: median, 95 % and 99 %.",
                    _latency(0.5),
                    _latency(0.95),
                    _latency(0.99),
                    unit="s",
                ),
                lines(
                    "Placements",
                    "Reservations by outcome. A conflict is repeated in the next pass.",
                    Target(
                        f"sum by (outcome) (increase({_RESERVATIONS}[$__rate_interval]))",
                        "{{outcome}}",
                    ),
                ),
                lines(
                    "Pods removed by the operator",
                    "Pods that were deleted or evicted, by reason.",
                    Target(
                        f"sum by (reason) (increase({_REMOVED}[$__rate_interval])) > 0",
                        "{{reason}}",
                    ),
                    runbook="workloads.md#devicemismatch",
                ),
                lines(
                    "Rejected allocations",
                    "Allocate calls that the agents rejected, by reason.",
                    Target(
                        "sum by (reason) (increase(gpufleet_agent_allocations_total"
                        f'{{{CLUSTER},outcome="Rejected"}}[$__rate_interval]))',
                        "{{reason}}",
                    ),
                    runbook="agents.md#highrejectionrate",
                ),
            ),
        ),
    ),
)
