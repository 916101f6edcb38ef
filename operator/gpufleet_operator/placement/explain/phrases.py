"""Reasons in words: completes "unusable are 22 ..."."""

from gpufleet_operator.placement.model import Reason

PHRASES: dict[Reason, str] = {
    Reason.NODE_BACKOFF: "on a node that refused this replica lately",
    Reason.NODE_UNSCHEDULABLE: "on a cordoned node",
    Reason.NODE_SELECTOR: "on a node that the node selector leaves out",
    Reason.NODE_AFFINITY: "on a node that the pod's node affinity leaves out",
    Reason.TAINT: "on a node with a taint that the pod doesn't tolerate",
    Reason.TELEMETRY_STALE: "with stale telemetry",
    Reason.UNHEALTHY: "unhealthy",
    Reason.IN_USE: "in use",
    Reason.FOREIGN_PROCESS: "with a process, or maybe one, that belongs to no pod of ours",
    Reason.NOT_INCLUDED: "not in includeUUIDs",
    Reason.EXCLUDED: "in excludeUUIDs",
    Reason.MODEL: "of a model that isn't accepted",
    Reason.COMPUTE_CAPABILITY: "with too low a compute capability",
    Reason.MEASUREMENT_MISSING: "without a measurement that is required",
    Reason.INSUFFICIENT_FREE_MEMORY: "with too little free memory",
    Reason.COMPUTE: "with too little compute left",
    Reason.UTILIZATION: "too busy",
    Reason.TEMPERATURE: "too hot",
    Reason.INSUFFICIENT_CPU: "on a node with too little CPU left",
    Reason.INSUFFICIENT_MEMORY: "on a node with too little memory left",
    Reason.TOO_MANY_PODS: "on a node with no room for another pod",
    Reason.INSUFFICIENT_EXTENDED_RESOURCE: "on a node with too little of an extended resource",
    Reason.INSUFFICIENT_DEVICES: "on a node with too few such GPUs",
    Reason.TOPOLOGY: "not connected as the topology asks",
    Reason.GANG: "usable, but not enough for the whole gang",
}
