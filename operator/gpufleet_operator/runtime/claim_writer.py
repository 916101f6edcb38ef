"""Writes ResourceClaims, and applies each response to the cache."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, ConflictError, InvalidWriteError, NotFoundError
from gpufleet_operator.kube.events import ObjectEventRecorder, ObjectReference
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import Event
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.claims.resource_claim import ClaimRequest
from gpufleet_operator.runtime.cached_write import creation_again_if_missing, mark_deleting

log = structlog.get_logger(__name__)

NO_SHARES: Final = (
    "the apiserver drops the memory of the request: shares by claims need Kubernetes 1.36 or later, "
    "or the feature gate DRAConsumableCapacity"
)


class ClaimWriter:
    """Writes ResourceClaims for the executor, with the same errors as its other writes.

    Args:
        writer: The apiserver.
        cache: Updated from each response.
        clock: Time of events.
        recorder: Writes events.
    """

    def __init__(self, writer: KubeWriter, cache: Cache, clock: ServerClock, recorder: ObjectEventRecorder) -> None:
        self._writer, self._cache, self._clock, self._recorder = writer, cache, clock, recorder

    async def create(self, action: CreateClaim) -> None:
        """Creates a claim.

        Raises:
            ConflictError: A claim of the pod has this name and requests other devices, or is being deleted: the pod
                must not be released.
            InvalidWriteError: The apiserver drops the memory of a share: the claim would take the whole device, and was
                deleted.
        """
        with creation_again_if_missing():
            body = await self._writer.create_claim(action.body)
        self._cache.claims.apply(body)
        found = self._cache.claims.by_pod.get((action.namespace, action.pod_uid), {}).get(action.name)
        if found is not None and found.requests != action.requests and found.requests == _whole(action.requests):
            # Deleted here and not by a later pass, because a successful write ends the backoff of the pod's claim.
            await self._writer.delete_claim(found.namespace, found.name, found.uid, found.resource_version)
            mark_deleting(self._cache.claims, found.uid)
            raise InvalidWriteError(NO_SHARES)
        if found is None or found.deleting or found.requests != action.requests:
            raise ConflictError(f"ResourceClaim {action.name} exists with other requests, or is being deleted", 409)

    async def delete(self, action: DeleteClaim) -> None:
        try:
            await self._writer.delete_claim(action.namespace, action.name, action.uid, action.resource_version)
        except NotFoundError:
            self._cache.claims.remove(action.uid, "")
            return
        mark_deleting(self._cache.claims, action.uid)
        if action.reason:
            about = ObjectReference(action.namespace, action.workload, action.workload_uid)
            event = Event("Reassigned", f"pod {action.pod} gets other devices: {action.reason}", warning=True)
            try:
                await self._recorder.record(about, event, self._clock.now())
            except ApiError as error:  # not retried: nothing depends on it
                log.warning("cannot record event", reason=event.reason, error=str(error))


def _whole(requests: Sequence[ClaimRequest]) -> tuple[ClaimRequest, ...]:
    return tuple(replace(request, memory_mib=None) for request in requests)
