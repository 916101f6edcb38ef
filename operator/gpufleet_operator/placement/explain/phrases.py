"""The filter reasons as phrases that follow a count: "0/16 GPUs are available: 5 in use, 11 insufficient memory."."""

from gpufleet_operator.placement.model import Reason

PHRASES: dict[Reason, str] = {
    Reason.NODE_BACKOFF: "on a node in backoff",
    Reason.NODE_UNSCHEDULABLE: "on an unschedulable node",
    Reason.NODE_SELECTOR: "not matching the node selector",
    Reason.NODE_AFFINITY: "not matching the node affinity",
    Reason.TAINT: "on a node with an untolerated taint",
    Reason.TELEMETRY_STALE: "stale telemetry",
    Reason.UNHEALTHY: "unhealthy",
    Reason.IN_USE: "in use",
    Reason.FOREIGN_PROCESS: "used (or possibly used) outside Kubernetes",
    Reason.NOT_INCLUDED: "not in includeUUIDs",
    Reason.EXCLUDED: "in excludeUUIDs",
    Reason.MODEL: "model mismatch",
    Reason.COMPUTE_CAPABILITY: "insufficient compute capability",
    Reason.MEASUREMENT_MISSING: "missing a required measurement",
    Reason.INSUFFICIENT_FREE_MEMORY: "insufficient memory",
    Reason.COMPUTE: "insufficient compute",
    Reason.UTILIZATION: "utilization too high",
    Reason.TEMPERATURE: "temperature too high",
    Reason.INSUFFICIENT_CPU: "insufficient node CPU",
    Reason.INSUFFICIENT_MEMORY: "insufficient node memory",
    Reason.TOO_MANY_PODS: "too many pods on the node",
    Reason.INSUFFICIENT_EXTENDED_RESOURCE: "insufficient extended resource on the node",
    Reason.INSUFFICIENT_DEVICES: "insufficient GPUs on the node",
    Reason.TOPOLOGY: "topology not satisfied",
    Reason.GANG: "gang incomplete",
}
