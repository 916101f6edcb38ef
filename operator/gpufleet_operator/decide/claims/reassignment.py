"""Selects released pods that get other devices by another claim because they cannot start with the reserved ones.

These are pods of other owners, which name a template of claims: the operator can replace its own pods at no cost, but
not these. Their claim alone decides where they run, so they are released without a pin. Three steps, each of which the
stored objects prove to the next one:

1. The claim is deleted in the version that was seen: kube-scheduler has not allocated it, and cannot any more.
2. A pod without a claim cannot be bound. Its reservation is dropped, other devices are reserved, and its annotation
   names them.
3. The claim is created like a lost one. Before step 2 it could be allocated to a pod whose reservation is about to be
   dropped because its annotation names another node.
"""

from collections.abc import Iterator

from gpufleet_operator.fleet.cordons import has_cordoned_device
from gpufleet_operator.fleet.device_health import reported_unhealthy_devices
from gpufleet_operator.fleet.node_health import unreachable_reason
from gpufleet_operator.model.objects import Pod, Reservation
from gpufleet_operator.model.snapshot import Snapshot


def may_be_reassigned(snapshot: Snapshot, pod: Pod) -> bool:
    """Returns True for a released pod that another claim can still give other devices."""
    if not (snapshot.limits.claims and pod.follows_claim) or pod.gates or pod.node is not None or pod.nominated:
        return False
    claim = snapshot.claim_of(pod)
    return claim is None or claim.allocated is None


def unusable_reason(snapshot: Snapshot, reservation: Reservation) -> str:
    """Returns why no pod can start with the reserved devices, as the agent and the cluster report it; empty: it can.

    kube-scheduler's own objections are not included.
    """
    return next(_unusable(snapshot, reservation), "")


def _unusable(snapshot: Snapshot, reservation: Reservation) -> Iterator[str]:
    node = reservation.node
    if node not in snapshot.nodes:
        yield f"node {node} was deleted"
        return
    if (reason := unreachable_reason(snapshot, node)) is not None:
        yield reason
    if snapshot.stale_reason(node) is not None:
        return
    unhealthy = reported_unhealthy_devices(snapshot.telemetry[node], reservation.assignment)
    if unhealthy:
        yield f"{', '.join(unhealthy)} on {node} became unhealthy before the pod started"
    if has_cordoned_device(snapshot, node, reservation.assignment):
        yield f"a reserved device on {node} was cordoned before the pod started"
