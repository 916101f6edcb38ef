"""Collects the writes to ResourceClaims.

A claim is created between the reservation of its devices and the release of its pod. Each of the three is derived from
the stored objects, so a crash between two of them has no effect on the result. A claim that does not match the
reservation is deleted first: its pod is gated, so it is not allocated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpufleet_operator.decide.assessment.workload_guard import WorkloadGuard
from gpufleet_operator.ledger.ledger import Ledger, is_stored
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim, claim_key
from gpufleet_operator.model.claims.resource_claim import ResourceClaim
from gpufleet_operator.model.objects import Pod, Reservation, Workload
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.pods.claims.claim_body import claim_body, claim_requests

Released = tuple[Pod, Reservation]
"""A gated pod that can be released, and its reservation."""


@dataclass(frozen=True, slots=True)
class ClaimWrites:
    creates: tuple[CreateClaim, ...] = ()
    deletes: tuple[DeleteClaim, ...] = ()
    blocked: frozenset[str] = frozenset()
    """Uids of pods that cannot be released, because their claim neither exists nor is created by this pass."""

    @property
    def created(self) -> frozenset[str]:
        """Uids of the pods whose claims are created."""
        return frozenset(create.pod_uid for create in self.creates)


_NO_WRITES = ClaimWrites()


def collect_claims(
    snapshot: Snapshot,
    state: PassState,
    assessed: Sequence[WorkloadReplicas],
    ledger: Ledger,
    ready: Mapping[str, Sequence[Released]],
    *,
    guard: WorkloadGuard,
) -> ClaimWrites:
    """Returns the writes to claims. The pods of workloads on which this fails are blocked.

    Args:
        snapshot: The cluster.
        state: That of this pass.
        assessed: The workloads that parse.
        ledger: After this pass.
        ready: By workload uid, the pods to release.
        guard: Gets the workloads on which this fails.
    """

    def of_workload(workload: WorkloadReplicas) -> tuple[str, ClaimWrites]:
        uid = workload.workload.uid
        return uid, _of_workload(snapshot, state, workload, ledger, ready.get(uid, ()))

    found = dict(guard.workloads(of_workload, assessed))
    blocked = {uid for writes in found.values() for uid in writes.blocked}
    if len(found) < len(assessed):
        blocked |= {pod.uid for uid, pods in ready.items() if uid not in found for pod, _ in pods}
    return ClaimWrites(
        tuple(c for writes in found.values() for c in writes.creates),
        tuple(d for writes in found.values() for d in writes.deletes),
        frozenset(blocked),
    )


def _of_workload(
    snapshot: Snapshot, state: PassState, assessed: WorkloadReplicas, ledger: Ledger, ready: Sequence[Released]
) -> ClaimWrites:
    creates: list[CreateClaim] = []
    deletes: list[DeleteClaim] = []
    blocked: set[str] = set()
    for pod, reservation in ready:
        if pod.device_claim is None or not pod.gates:
            continue  # a reassigned pod gets its claim when its annotation names the devices
        found = snapshot.claim_of(pod)
        if found is None and not state.is_backing_off(claim_key(pod.uid), snapshot.now):
            creates.append(_create(assessed.workload, pod, reservation, after=frozenset({reservation.node})))
        elif found is None or found.deleting:
            blocked.add(pod.uid)
        elif found.requests != claim_requests(reservation.assignment):
            blocked.add(pod.uid)
            deletes.append(_delete(assessed.workload, pod, found))
    creates += _lost(snapshot, assessed, ledger)
    deletes += _unreserved(snapshot, assessed, ledger)
    if not (creates or deletes or blocked):
        return _NO_WRITES
    return ClaimWrites(
        tuple(c for c in creates if not state.is_backing_off(c.key, snapshot.now)),
        tuple(d for d in deletes if not state.is_backing_off(d.key, snapshot.now)),
        frozenset(blocked),
    )


def _lost(snapshot: Snapshot, assessed: WorkloadReplicas, ledger: Ledger) -> Iterable[CreateClaim]:
    """Yields the claims of released pods that another client deleted before kube-scheduler allocated them."""
    for pod, replica in _pods(assessed):
        reservation = ledger.active.get(pod.uid)
        waits = not pod.gates and pod.node is None and not pod.terminal and not pod.deleting
        if replica.reassigned or not waits or reservation is None:
            continue
        if snapshot.claim_of(pod) is None and is_stored(snapshot, reservation):
            yield _create(assessed.workload, pod, reservation, after=frozenset())


def _unreserved(snapshot: Snapshot, assessed: WorkloadReplicas, ledger: Ledger) -> Iterable[DeleteClaim]:
    """Yields the claims of reassigned pods, and those of gated pods whose reservation was dropped later."""
    for pod, replica in _pods(assessed):
        found = snapshot.claim_of(pod)
        if found is None or found.deleting:
            continue
        if replica.reassigned:
            yield _delete(assessed.workload, pod, found, replica.message)
        elif pod.gates and pod.uid not in ledger.active:
            yield _delete(assessed.workload, pod, found)


def _pods(assessed: WorkloadReplicas) -> Iterable[tuple[Pod, Replica]]:
    return ((r.pod, r) for r in assessed.replicas if r.pod is not None and r.pod.device_claim is not None)


def _create(workload: Workload, pod: Pod, reservation: Reservation, *, after: frozenset[str]) -> CreateClaim:
    body = claim_body(workload, pod, reservation.assignment)
    return CreateClaim(
        workload_uid=workload.uid,
        pod_uid=pod.uid,
        namespace=pod.namespace,
        name=pod.claim_name,
        requests=claim_requests(reservation.assignment),
        body=body,
        after=after,
    )


def _delete(workload: Workload, pod: Pod, claim: ResourceClaim, reason: str = "") -> DeleteClaim:
    return DeleteClaim(
        workload_uid=workload.uid,
        pod_uid=pod.uid,
        namespace=claim.namespace,
        name=claim.name,
        uid=claim.uid,
        resource_version=claim.resource_version,
        workload=workload.name,
        pod=pod.name,
        reason=reason,
    )
