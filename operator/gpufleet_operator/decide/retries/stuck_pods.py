"""Removes pods that wait too long to start, so that their replica is placed elsewhere.

A released pod waits for a scheduler and then for the kubelet, and keeps its devices meanwhile. A gated pod with the
name of another resource would wait indefinitely. No container of these pods has started.
"""

from dataclasses import replace
from datetime import timedelta

from gpufleet_api.workload_status import PlacementState
from gpufleet_operator.fleet.node_health import unreachable_reason
from gpufleet_operator.model.objects import DEFAULT_SCHEDULER, Pod
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState


def remove_stuck_pods(snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas) -> WorkloadReplicas:
    """Adds the removals of stuck pods, with a message for each of their replicas."""
    leaving = {removal.pod.uid for removal in assessed.removals}
    replicas, removals = [], list(assessed.removals)
    for replica in assessed.replicas:
        found = None
        if replica.pod is not None and replica.pod.uid not in leaving and not replica.reassigned:
            found = _stuck(snapshot, state, assessed, replica, replica.pod)
        if found is not None:
            removals.append(found)
            replicas.append(_without(replica, found))
        else:
            replicas.append(replica)
    if len(removals) == len(assessed.removals):
        return assessed
    return replace(assessed, replicas=tuple(replicas), removals=tuple(removals))


def scheduling_timeout(snapshot: Snapshot, pod: Pod) -> timedelta:
    """Returns for how long a released pod may have no response of a scheduler."""
    limits = snapshot.limits
    return limits.scheduling_timeout + (limits.volume_binding_timeout if pod.volume_claims else timedelta(0))


def unanswered_message(snapshot: Snapshot, pod: Pod) -> str:
    """Returns what to check when no scheduler has responded to a pod."""
    seconds = f"{scheduling_timeout(snapshot, pod).total_seconds():g} s"
    volumes = ", ".join(f'PersistentVolumeClaim "{name}"' for name in pod.volume_claims)
    if pod.claims and pod.device_claim is None:
        listed = ", ".join(pod.claims)
        return f"{pod.scheduler} has not tried to schedule the pod for {seconds}: check that {listed} exists"
    if pod.scheduler == DEFAULT_SCHEDULER:
        check = f"the provisioner of {volumes} responds" if volumes else "kube-scheduler runs"
        return f"{pod.scheduler} has reported nothing about the pod for {seconds}: check that {check}"
    provisioned = f", and is {volumes} provisioned" if volumes else ""
    return f'no scheduler has looked at the pod for {seconds}: is there one called "{pod.scheduler}"{provisioned}?'


def _stuck(
    snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas, replica: Replica, pod: Pod
) -> Removal | None:
    if replica.gated:
        return _with_other_resource(snapshot, assessed, replica, pod)
    if replica.state not in (PlacementState.RESERVED, PlacementState.BOUND):
        return None
    node = pod.target_node
    if pod.has_started:
        return None  # a source of its devices is late, or was lost with its Node
    if node is not None and node in snapshot.nodes and (reason := unreachable_reason(snapshot, node)):
        return Removal(pod, replica.index, RemovalReason.NODE_NOT_READY, reason, node)
    since = state.unanswered_since.get(pod.uid)
    if since is None or snapshot.now - since < scheduling_timeout(snapshot, pod):
        return None
    return Removal(pod, replica.index, RemovalReason.NOT_SCHEDULED, unanswered_message(snapshot, pod), node)


def _without(replica: Replica, removal: Removal) -> Replica:
    """Returns the replica as it is while its pod is being removed: a gated pod is no longer released."""
    if replica.gated:
        return Replica(replica.index, PlacementState.PENDING, WaitReason.REPLACEMENT, message=removal.message)
    return replace(replica, message=removal.message)


def _with_other_resource(snapshot: Snapshot, assessed: WorkloadReplicas, replica: Replica, pod: Pod) -> Removal | None:
    """Removes a gated pod that was created before the operator's resource was renamed. No container of it has run."""
    resource = snapshot.limits.resources.name_for(assessed.spec.devices)
    if pod.device_claim is not None:
        if snapshot.limits.claims:
            return None
        message = "pod requests devices by a ResourceClaim: the operator's --transport is DevicePlugin"
        return Removal(pod, replica.index, RemovalReason.TRANSPORT_CHANGED, message)
    if resource in pod.needs.extended:
        return None
    message = f"pod does not request {resource}: the resource was renamed"
    return Removal(pod, replica.index, RemovalReason.RESOURCE_RENAMED, message)
