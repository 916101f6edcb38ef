"""Writes of ResourceClaims, which follow the reservation of their devices and precede the release of their pod."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpufleet_operator.model.claims.resource_claim import ClaimRequest


@dataclass(frozen=True, slots=True)
class CreateClaim:
    """Create the claim of a pod's reserved devices, once the reservations on all nodes in `after` are written."""

    workload_uid: str
    pod_uid: str
    namespace: str
    name: str
    requests: tuple[ClaimRequest, ...]
    body: Mapping[str, Any]
    after: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        return claim_key(self.pod_uid)


@dataclass(frozen=True, slots=True)
class DeleteClaim:
    """Delete this claim in this resource version, which is not allocated.

    It does not match the reservation of its gated pod, or its released pod gets other devices.
    """

    workload_uid: str
    pod_uid: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    workload: str
    pod: str
    reason: str = ""
    """Why the pod gets other devices, for an event; empty: no event."""

    @property
    def key(self) -> str:
        return claim_key(self.pod_uid)


def claim_key(pod_uid: str) -> str:
    """Returns the key of the backoff of the writes of a pod's claim."""
    return f"claim/{pod_uid}"
