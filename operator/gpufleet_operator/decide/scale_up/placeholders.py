"""Decides on placeholder pods for workloads that wait only for devices.

cluster-autoscaler looks for pods that kube-scheduler reports as unschedulable; it does not count pods with scheduling
gates. So each replica without devices of a workload with `placement.scaleUp` gets a pod with its requests and node
rules, which no scheduler binds. Behind the scheduling gate of Kueue, only those for which Kueue reserves quota.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_common import timestamps
from gpufleet_operator.decide.kueue.admission import may_have_devices
from gpufleet_operator.model.claims.resource_claim import PodKey
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.model.scale_up.objects import CreatePlaceholder, Placeholder, PlaceholderWrites
from gpufleet_operator.placement.model import FilterReason
from gpufleet_operator.pods.scale_up import placeholder

MAX_PER_WORKLOAD = 16
"""Unless it is a gang, whose replicas would wait for the nodes of the others forever."""
MAX_PLACEHOLDERS = 64
"""Maximum number of placeholders for workloads that are not gangs."""
MAX_OF_GANGS = 1024
"""Maximum number of all placeholders: further gangs wait until those before them have devices."""
DELAY = timedelta(seconds=10)
"""Time before a waiting workload gets placeholders: the next report of an agent may have a free device."""

_MORE_NODES_HELP = frozenset(
    {
        FilterReason.NODE_NOT_READY,
        FilterReason.NODE_UNSCHEDULABLE,
        FilterReason.HOST_PORT,
        FilterReason.POD_ANTI_AFFINITY,
        FilterReason.TOPOLOGY_SPREAD,
        FilterReason.CORDONED,
        FilterReason.UNHEALTHY,
        FilterReason.IN_USE,
        FilterReason.FOREIGN_PROCESS,
        FilterReason.EARMARKED,
        FilterReason.UTILIZATION,
        FilterReason.TEMPERATURE,
        FilterReason.INSUFFICIENT_DEVICES,
        FilterReason.INSUFFICIENT_CPU,
        FilterReason.INSUFFICIENT_MEMORY,
        FilterReason.TOO_MANY_PODS,
        FilterReason.INSUFFICIENT_EXTENDED_RESOURCE,
        FilterReason.NODE_SELECTOR,
        FilterReason.NODE_AFFINITY,
        FilterReason.GANG,
    }
)
"""Reasons that do not apply to the devices of an added node. The others are requirements that the model of GPU does not
meet, or need an administrator."""


@dataclass(frozen=True, slots=True)
class PlaceholderContext:
    """Input of the decision."""

    workloads: Mapping[str, Workload]
    """By uid."""
    pods: Mapping[str, Pod]
    """Pods with the workload label, by uid."""
    placeholders: Iterable[Placeholder]
    reserved: Mapping[str, Collection[str]]
    """Uid of a pod -> nodes that store a reservation for it."""
    with_quota: Collection[PodKey]
    """The pods for which Kueue reserves quota."""
    resources: Resources
    policy: PodPolicy
    now: datetime


def placeholder_writes(context: PlaceholderContext) -> PlaceholderWrites:
    """Returns what to write so that each workload has the placeholders that it needs, within the limits."""
    wanted = {(one.namespace, one.name): one for one in _wanted(context)}
    existing = {(one.namespace, one.name): one for one in context.placeholders}
    return PlaceholderWrites(
        creates=tuple(one for key, one in wanted.items() if key not in existing),
        reports=tuple(
            (one, wanted[key].message)
            for key, one in existing.items()
            if key in wanted and not one.reported and not one.deleting
        ),
        deletes=tuple(one for key, one in existing.items() if key not in wanted and not one.deleting),
    )


def _wanted(context: PlaceholderContext) -> Iterator[CreatePlaceholder]:
    """Yields the placeholders that should exist, of the workloads that have waited longest first."""
    waiting: dict[str, int] = {}
    for pod in context.pods.values():
        if not pod.gates or pod.deleting or context.reserved.get(pod.uid):
            continue
        if may_have_devices(pod, context.with_quota):
            waiting[pod.workload_uid] = waiting.get(pod.workload_uid, 0) + 1
    left, of_gangs = MAX_PLACEHOLDERS, MAX_OF_GANGS
    known = (context.workloads[uid] for uid in waiting if uid in context.workloads)
    for workload in sorted(known, key=lambda one: (one.created, one.uid)):
        condition = needs_nodes(workload)
        if condition is None or workload.model is None:
            continue
        if context.now < timestamps.parse(condition.last_transition_time) + DELAY:
            continue
        if workload.model.spec.placement.gang:
            number = waiting[workload.uid] if waiting[workload.uid] <= of_gangs else 0
            of_gangs -= number
        else:
            number = min(waiting[workload.uid], MAX_PER_WORKLOAD, left)
            left -= number
        for body in placeholder.build(workload, workload.model.spec, number, context.resources, context.policy):
            yield CreatePlaceholder(workload.namespace, body["metadata"]["name"], body, condition.message)


def needs_nodes(workload: Workload) -> Condition | None:
    """Returns the condition Placed of a workload that asks for nodes; None: it has devices, or they would not help."""
    model, status = workload.model, workload.status
    if model is None or status is None or workload.deleting or status.explanation is None:
        return None
    if not model.spec.placement.scale_up or model.spec.adopts or model.spec.suspend:
        return None
    placed = next((c for c in status.conditions if c.type == "Placed"), None)
    if placed is None or placed.status is ConditionStatus.TRUE or placed.reason != "NoDevicesAvailable":
        return None
    if placed.observed_generation != workload.generation:
        return None
    explanation = status.explanation
    reasons = {one.reason for one in explanation.ineligible_devices}
    helps = not explanation.devices_considered or bool(reasons & _MORE_NODES_HELP)
    return placed if helps else None
