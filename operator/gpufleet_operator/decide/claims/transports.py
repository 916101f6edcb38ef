"""Chooses the transport of a pod: it requests devices by an extended resource or by a claim, and cannot change that.

In a fleet with both, the operator creates a pod for the transport of the nodes that fit its replica, see `new_pods`. If
these change while the pod waits, the pod is replaced: none of its containers has run.
"""

from collections.abc import Mapping
from dataclasses import replace

from gpufleet_api.names import Transport
from gpufleet_operator.ledger.kept import ReplicaKey
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.replica import Removal, RemovalReason, Replica, WaitReason, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState

_OTHER = {Transport.DRA: Transport.DEVICE_PLUGIN, Transport.DEVICE_PLUGIN: Transport.DRA}


def transport_of_new_pod(
    snapshot: Snapshot, state: PassState, workload: Workload, replica: int, expected: Mapping[ReplicaKey, Transport]
) -> Transport:
    """Returns the transport for a replica's next pod.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        workload: Of the replica.
        replica: Its index.
        expected: The transports of the nodes that the pods of this pass would be placed on.
    """
    if not snapshot.limits.claims:
        return Transport.DEVICE_PLUGIN
    found = expected.get((workload.uid, replica)) or stored_transport(snapshot, state, workload, replica)
    if found is not None:
        return found
    plugin, claims = (snapshot.nodes_with.get(one) for one in (Transport.DEVICE_PLUGIN, Transport.DRA))
    return Transport.DRA if claims and not plugin else Transport.DEVICE_PLUGIN


def stored_transport(snapshot: Snapshot, state: PassState, workload: Workload, replica: int) -> Transport | None:
    """Returns the transport that an earlier pass chose for a replica, or that of its last node; None: neither."""
    decided = state.transports.get((workload.uid, replica))
    if decided is not None and snapshot.nodes_with.get(decided):
        return decided
    stored = workload.stored_placements.get(replica)
    last = snapshot.telemetry.get(stored.node) if stored is not None and stored.node is not None else None
    return last.transport if last is not None else None


def fits_transport(snapshot: Snapshot, pod: Pod, node: str) -> bool:
    """Returns True when the pod has the transport of the node."""
    telemetry = snapshot.telemetry.get(node)
    return telemetry is None or telemetry.transport is pod.transport


def nodes_with_other_transport(snapshot: Snapshot, transport: Transport) -> frozenset[str]:
    """Returns the nodes on which a pod with this transport cannot get devices."""
    return frozenset(snapshot.nodes_with.get(_OTHER[transport], ()))


def without_device_requests(pod: Pod, resources: Resources) -> Pod:
    """Returns the pod without its requests for devices, which nodes with transport DRA do not offer as resources."""
    extended = {name: amount for name, amount in pod.needs.extended.items() if name not in resources.names}
    return replace(pod, needs=replace(pod.needs, extended=extended))


def other_transport_reason(transport: Transport, nodes: int) -> str:
    """Returns why a number of nodes is excluded for pods with this transport, as a message."""
    counted = "1 node has" if nodes == 1 else f"{nodes} nodes have"
    return f"{counted} transport {_OTHER[transport]}, and the pod requests devices by {transport}"


def may_switch(snapshot: Snapshot) -> bool:
    """Returns True when there are nodes of both transports to choose from."""
    return snapshot.limits.claims and all(snapshot.nodes_with.get(transport) for transport in Transport)


def replace_pods(assessed: WorkloadReplicas, switched: Mapping[ReplicaKey, Transport]) -> WorkloadReplicas:
    """Removes the gated pods of the replicas for which only nodes of the other transport have devices."""
    replicas: list[Replica] = []
    removals: list[Removal] = []
    for replica in assessed.replicas:
        transport = switched.get((assessed.workload.uid, replica.index))
        if transport is None or replica.pod is None:
            replicas.append(replica)
            continue
        message = f"nodes with transport {transport} have devices for it"
        removals.append(Removal(replica.pod, replica.index, RemovalReason.TRANSPORT_CHANGED, message))
        replicas.append(Replica(replica.index, replica.state, WaitReason.REPLACEMENT, message=message))
    if not removals:
        return assessed
    return replace(assessed, replicas=tuple(replicas), removals=(*assessed.removals, *removals))


def next_transports(
    snapshot: Snapshot, state: PassState, switched: Mapping[ReplicaKey, Transport]
) -> dict[ReplicaKey, Transport]:
    """Returns the transports for the state after this pass, without those of deleted workloads."""
    kept = {key: each for key, each in state.transports.items() if key[0] in snapshot.workloads}
    return {**kept, **switched}
