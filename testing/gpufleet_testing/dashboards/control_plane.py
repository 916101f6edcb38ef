"""Whether agents and operator work, how fast, and in which versions."""

from gpufleet_testing.dashboards.layout import Dashboard, Target, lines, stat, table
from gpufleet_testing.dashboards.queries import AGENT_JOB, CLUSTER, OPERATOR_JOB, VARIABLES, quantile

_AGENTS = f'{CLUSTER},node=~"$node"'
_STATE = "gpufleet_operator_telemetry_state"
_PASSES = f'gpufleet_operator_reconcile_duration_seconds_count{{{CLUSTER},step="decide"}}'


def _pass(part: float, step: str) -> Target:
    buckets = f'gpufleet_operator_reconcile_duration_seconds_bucket{{{CLUSTER},step="{step}"}}'
    return Target(quantile(part, buckets), f"{step} {part:.0%}")


def _increase(metric: str, *labels: str, legend: str, where: str = CLUSTER) -> Target:
    return Target(f"sum by ({', '.join(labels)}) (increase({metric}{{{where}}}[$__rate_interval]))", legend)


CONTROL_PLANE = Dashboard(
    uid="gpufleet-control-plane",
    title="gpufleet / Control plane",
    description="Whether agents and operator work, how fast, and in which versions.",
    variables=(VARIABLES["cluster"], VARIABLES["node"]),
    rows=(
        (
            "Overview",
            (
                stat(
                    "Operators",
                    "Operators that Prometheus can scrape.",
                    f"sum(up{{{CLUSTER},{OPERATOR_JOB}}}) or vector(0)",
                    runbook="operator.md#operatordown",
                ),
                stat(
                    "Passes per minute",
                    "Reconcile passes. Without a change there is one every `operator.resyncIntervalSeconds`.",
                    f"60 * sum(rate({_PASSES}[$__rate_interval]))",
                    runbook="operator.md#operatorpassstuck",
                ),
                stat("Agents", "Agents that Prometheus can scrape.", f"sum(up{{{_AGENTS},{AGENT_JOB}}}) or vector(0)"),
                stat(
                    "Agents down",
                    "Agents that Prometheus cannot scrape.",
                    f"count(up{{{_AGENTS},{AGENT_JOB}}} == 0) or vector(0)",
                    thresholds=((1, "red"),),
                    runbook="agents.md#agentdown",
                ),
                stat(
                    "Nodes with stale telemetry",
                    "No pod is placed on them.",
                    f'count(max by (cluster, node) ({_STATE}{{{_AGENTS},state=~"Stale|Invalid"}})) or vector(0)',
                    thresholds=((1, "red"),),
                    runbook="agents.md#telemetrystale",
                ),
                stat(
                    "Unregistered plugins",
                    "Resources that the kubelet of a node does not offer.",
                    f"count(gpufleet_agent_registered{{{_AGENTS}}} == 0) or vector(0)",
                    thresholds=((1, "red"),),
                    runbook="agents.md#pluginnotregistered",
                ),
            ),
        ),
        (
            "Operator",
            (
                lines(
                    "Duration of passes",
                    "Median and 99 % of deciding and of writing.",
                    _pass(0.5, "decide"),
                    _pass(0.99, "decide"),
                    _pass(0.5, "execute"),
                    _pass(0.99, "execute"),
                    unit="s",
                    runbook="operator.md#operatorpassstuck",
                ),
                lines(
                    "Writes",
                    "Writes to the apiserver, by kind and outcome.",
                    _increase("gpufleet_operator_writes_total", "kind", "outcome", legend="{{kind}} {{outcome}}"),
                ),
                lines(
                    "Errors",
                    "Errors that should not occur: in the validation of templates, and objects that cannot be decoded.",
                    _increase("gpufleet_operator_unexpected_errors_total", "kind", legend="unexpected {{kind}}"),
                    _increase(
                        "gpufleet_operator_decode_errors_total", "kind", legend="operator cannot decode {{kind}}"
                    ),
                    _increase("gpufleet_agent_decode_errors_total", "part", legend="agent cannot decode {{part}}"),
                    runbook="operator.md#unexpectederrors",
                ),
                lines(
                    "Denied reads",
                    "Paths that the apiserver denies the operator to list, watch or get, by resource.",
                    Target(f"max by (resource) (gpufleet_operator_denied_reads{{{CLUSTER}}})", "{{resource}}"),
                    thresholds=((1, "red"),),
                    runbook="operator.md#readsdenied",
                ),
                lines(
                    "Inconsistencies of the telemetry",
                    "Contradictions between nodes, such as one UUID on two nodes.",
                    Target(f"max(gpufleet_operator_fleet_inconsistencies{{{CLUSTER}}})", "inconsistencies"),
                    thresholds=((1, "red"),),
                ),
                lines(
                    "Operators that decide",
                    "1: of several replicas, the one with the Lease. 0 for some seconds while another one takes over.",
                    Target(f"sum(gpufleet_operator_leader{{{CLUSTER}}})", "leaders"),
                    runbook="operator.md#operatorpassstuck",
                ),
                lines(
                    "Nodes by telemetry state",
                    "The reason of the condition Fresh.",
                    Target(f"count by (state) (max by (cluster, node, state) ({_STATE}{{{_AGENTS}}}))", "{{state}}"),
                ),
                lines(
                    "Oldest telemetry",
                    "The ten nodes whose agents have neither reported nor confirmed their report for the longest time.",
                    Target(
                        f"topk(10, max by (cluster, node) (gpufleet_operator_telemetry_age_seconds{{{_AGENTS}}}))",
                        "{{node}}",
                    ),
                    unit="s",
                    thresholds=((90, "red"),),
                    runbook="agents.md#telemetrystale",
                ),
            ),
        ),
        (
            "Agents",
            (
                lines(
                    "Allocations",
                    "Allocate calls of the kubelets, by outcome and reason.",
                    _increase(
                        "gpufleet_agent_allocations_total",
                        "outcome",
                        "reason",
                        legend="{{outcome}} {{reason}}",
                        where=_AGENTS,
                    ),
                    runbook="agents.md#highrejectionrate",
                ),
                lines(
                    "Status writes",
                    "Writes of GPUTelemetry, by cause and outcome, and renewals of Leases, which replace them at rest.",
                    _increase(
                        "gpufleet_agent_status_writes_total",
                        "cause",
                        "outcome",
                        legend="{{cause}} {{outcome}}",
                        where=_AGENTS,
                    ),
                    _increase(
                        "gpufleet_agent_lease_renewals_total", "outcome", legend="renewal {{outcome}}", where=_AGENTS
                    ),
                ),
                lines(
                    "Failed PodResources lists",
                    "The agent cannot read from the kubelet which containers hold devices.",
                    _increase(
                        "gpufleet_agent_podresources_list_failures_total", "node", legend="{{node}}", where=_AGENTS
                    ),
                ),
                lines(
                    "Dropped samples",
                    "Readings that failed or were impossible, by reason.",
                    _increase("gpufleet_agent_samples_dropped_total", "reason", legend="{{reason}}", where=_AGENTS),
                ),
                table(
                    "Agents that need attention",
                    "Nodes whose driver does not answer, without a registered plugin, or with an old fault file.",
                    ["node"],
                    Target(
                        f"max by (node) (gpufleet_agent_hardware_available{{{_AGENTS}}} == 0) + 1", "driver missing"
                    ),
                    Target(f"count by (node) (gpufleet_agent_registered{{{_AGENTS}}} == 0)", "unregistered"),
                    Target(f"count by (node) (gpufleet_agent_checkpoint_current{{{_AGENTS}}} == 0)", "fault file"),
                    runbook="agents.md#faultfilenotcurrent",
                ),
                table(
                    "Versions",
                    "Number of processes of each version, for the progress of an upgrade.",
                    ["version"],
                    Target(f"count by (version) (gpufleet_agent_build_info{{{_AGENTS}}})", "agents"),
                    Target(f"count by (version) (gpufleet_operator_build_info{{{CLUSTER}}})", "operators"),
                ),
            ),
        ),
        (
            "Resources",
            (
                lines(
                    "Memory",
                    "Resident memory of the operator, and the highest of an agent.",
                    Target(f"max(process_resident_memory_bytes{{{CLUSTER},{OPERATOR_JOB}}})", "operator"),
                    Target(f"max(process_resident_memory_bytes{{{_AGENTS},{AGENT_JOB}}})", "agents, highest"),
                    Target(f"avg(process_resident_memory_bytes{{{_AGENTS},{AGENT_JOB}}})", "agents, mean"),
                    unit="bytes",
                ),
                lines(
                    "CPU",
                    "Cores in use by the operator, and the most of an agent.",
                    Target(
                        f"max(rate(process_cpu_seconds_total{{{CLUSTER},{OPERATOR_JOB}}}[$__rate_interval]))",
                        "operator",
                    ),
                    Target(
                        f"max(rate(process_cpu_seconds_total{{{_AGENTS},{AGENT_JOB}}}[$__rate_interval]))",
                        "agents, highest",
                    ),
                    Target(
                        f"avg(rate(process_cpu_seconds_total{{{_AGENTS},{AGENT_JOB}}}[$__rate_interval]))",
                        "agents, mean",
                    ),
                ),
            ),
        ),
    ),
)
