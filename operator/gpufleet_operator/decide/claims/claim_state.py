"""Messages about the ResourceClaim of a pod. Kubernetes reports nothing about a claim that is missing."""

from gpufleet_operator.model.claims.claim_actions import claim_key
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import PassState


def claim_rejection(snapshot: Snapshot, state: PassState, pod: Pod) -> str:
    """Returns why the apiserver rejects the claim of a gated pod, until it is tried again; empty: it does not.

    The reservation is dropped meanwhile, so that the devices are not kept for a pod that has no quota.
    """
    backoff = state.rejection(claim_key(pod.uid))
    if pod.device_claim is None or backoff is None or snapshot.now >= backoff.until:
        return ""
    return _rejected(pod, backoff.message)


def waiting_for_claim(snapshot: Snapshot, state: PassState, pod: Pod) -> str:
    """Returns why a released pod without a node waits for its claim; empty: it does not."""
    if pod.device_claim is None:
        return ""
    claim = snapshot.claim_of(pod)
    if claim is None:
        backoff = state.rejection(claim_key(pod.uid))
        if backoff is not None:
            return _rejected(pod, backoff.message)
        return f"ResourceClaim {pod.claim_name} was deleted: it is created again"
    if claim.deleting:
        return f"ResourceClaim {claim.name} is being deleted: it is created again after that"
    return ""


def _rejected(pod: Pod, message: str) -> str:
    return f"cannot create ResourceClaim {pod.claim_name}: {message}"
