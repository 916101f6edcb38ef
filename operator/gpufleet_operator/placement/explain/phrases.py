"""The filter reasons as phrases that follow a count: "0/16 GPUs are available: 5 in use, 11 insufficient memory."."""

from gpufleet_operator.placement.model import FilterReason

PHRASES: dict[FilterReason, str] = {
    FilterReason.NODE_BACKOFF: "on a node in backoff",
    FilterReason.NODE_NOT_READY: "on a node that is not ready",
    FilterReason.NODE_UNSCHEDULABLE: "on an unschedulable node",
    FilterReason.NODE_SELECTOR: "not matching the node selector",
    FilterReason.NODE_AFFINITY: "not matching the node affinity",
    FilterReason.TAINT: "on a node with an untolerated taint",
    FilterReason.TELEMETRY_STALE: "stale telemetry",
    FilterReason.UNHEALTHY: "unhealthy",
    FilterReason.IN_USE: "in use",
    FilterReason.FOREIGN_PROCESS: "used (or possibly used) outside Kubernetes",
    FilterReason.NOT_INCLUDED: "not in includeUUIDs",
    FilterReason.EXCLUDED: "in excludeUUIDs",
    FilterReason.MODEL: "model mismatch",
    FilterReason.COMPUTE_CAPABILITY: "insufficient compute capability",
    FilterReason.MEASUREMENT_MISSING: "missing a required measurement",
    FilterReason.INSUFFICIENT_FREE_MEMORY: "insufficient memory",
    FilterReason.COMPUTE: "insufficient compute",
    FilterReason.UTILIZATION: "utilization too high",
    FilterReason.TEMPERATURE: "temperature too high",
    FilterReason.INSUFFICIENT_CPU: "insufficient node CPU",
    FilterReason.INSUFFICIENT_MEMORY: "insufficient node memory",
    FilterReason.TOO_MANY_PODS: "too many pods on the node",
    FilterReason.INSUFFICIENT_EXTENDED_RESOURCE: "insufficient extended resource on the node",
    FilterReason.INSUFFICIENT_DEVICES: "insufficient GPUs on the node",
    FilterReason.TOPOLOGY: "topology not satisfied",
    FilterReason.GANG: "gang incomplete",
}
