"""Writes single actions, and applies each response to the cache.

Since responses are in the cache before the next pass, the operator never decides on a state that it has changed itself;
the watch only confirms the change later.
"""

from collections.abc import Sequence

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube import patches
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, InvalidWriteError, NotFoundError, PatchConflictError
from gpufleet_operator.kube.events import POD_KIND, ObjectEventRecorder, ObjectReference
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import (
    CreatePod,
    CreateService,
    DeletePod,
    DeleteWorkload,
    Event,
    EvictPod,
    ReleasePod,
    Reserve,
    RestoreFinalizer,
    RestoreService,
    WriteStatus,
)
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.runtime.cached_write import creation_again_if_missing, mark_deleting, rejections_in

log = structlog.get_logger(__name__)


class ActionWriter:
    """Writes one action per call. Each method raises ConflictError or PatchConflictError to have it decided again.

    Args:
        writer: The apiserver.
        cache: Updated from each response.
        clock: Time of events.
        recorder: Writes events.
    """

    def __init__(self, writer: KubeWriter, cache: Cache, clock: ServerClock, recorder: ObjectEventRecorder) -> None:
        self._writer, self._cache, self._clock, self._recorder = writer, cache, clock, recorder

    async def create_pod(self, action: CreatePod) -> None:
        with creation_again_if_missing():
            body = await self._writer.create_pod(action.body)
        self._cache.pods.apply(body)

    async def create_service(self, action: CreateService) -> None:
        with creation_again_if_missing():
            body = await self._writer.create_service(action.body)
        self._cache.services.apply(body)

    async def restore_service(self, action: RestoreService) -> None:
        body = {**action.body, "metadata": {**action.body["metadata"], "uid": action.uid}}
        with rejections_in(self._cache.services, action.uid):
            restored = await self._writer.apply_service(body)
        self._cache.services.apply(restored)
        about = ObjectReference(body["metadata"]["namespace"], action.workload, action.workload_uid)
        note = f"restored labels and spec of Service {body['metadata']['name']}, which another client changed"
        await self._record(about, Event("ServiceRestored", note))

    async def reserve(self, action: Reserve) -> None:
        with rejections_in(self._cache.telemetry, action.uid):
            body = await self._writer.patch_telemetry(action.node, patches.reserve(action))
        self._cache.telemetry.apply(body)

    async def release_pod(self, action: ReleasePod) -> None:
        await self._patch_pod(action.namespace, action.name, action.pod_uid, action.patch)

    async def restore_finalizer(self, action: RestoreFinalizer) -> None:
        await self._patch_pod(action.namespace, action.name, action.uid, action.patch)

    async def delete_pod(self, action: DeletePod) -> None:
        version = action.resource_version
        if action.patch:
            body = await self._patch_pod(action.namespace, action.name, action.uid, action.patch)
            version = str(body["metadata"]["resourceVersion"])
        try:
            await self._writer.delete_pod(action.namespace, action.name, action.uid, version)
        except NotFoundError:
            self._cache.pods.remove(action.uid, "")
            return
        mark_deleting(self._cache.pods, action.uid)
        await self._record(
            ObjectReference(action.namespace, action.workload, action.workload_uid),
            Event(action.reason, f"pod {action.name}: {action.message}", warning=action.reason.is_warning),
        )

    async def evict_pod(self, action: EvictPod) -> None:
        if action.workload_uid:
            about = ObjectReference(action.namespace, action.workload, action.workload_uid)
        else:
            about = ObjectReference(action.namespace, action.name, action.uid, kind=POD_KIND, api_version="v1")
        try:
            await self._writer.evict_pod(action.namespace, action.name, action.uid)
        except NotFoundError:
            self._cache.pods.remove(action.uid, "")
            self._cache.other_pods.remove(action.uid, "")
            return
        except InvalidWriteError as error:
            blocked = f"pod {action.name}: {error} ({action.message})"
            await self._record(about, Event("EvictionBlocked", blocked, warning=True))
            raise
        mark_deleting(self._cache.pods, action.uid)
        mark_deleting(self._cache.other_pods, action.uid)
        await self._record(about, Event(action.reason, f"evicted pod {action.name}: {action.message}"))
        for neighbor in action.neighbors:
            note = f"pod {action.name} of GPUWorkload {action.workload} was {action.message}"
            about = ObjectReference(neighbor.namespace, neighbor.name, neighbor.uid)
            await self._record(about, Event("NeighborMoved", note))
        if action.beneficiary is not None:
            preemptor = ObjectReference(action.beneficiary.namespace, action.beneficiary.name, action.beneficiary.uid)
            victim = f"pod {action.namespace}/{action.name}"
            victim = f"{victim} of GPUWorkload {action.workload}" if action.workload else victim
            await self._record(preemptor, Event("Preempting", f"evicted {victim} of lower priority"))

    async def write_status(self, action: WriteStatus) -> None:
        try:
            body = await self._writer.patch_workload_status(action.namespace, action.name, patches.status(action))
        except PatchConflictError as error:
            self._cache.workloads.remove(action.workload_uid, "")
            self._cache.workloads.apply(error.current)
            raise
        except NotFoundError:
            self._cache.workloads.remove(action.workload_uid, "")
            return
        except ApiError:
            self._cache.workloads.give_up(action.workload_uid)
            raise
        self._cache.workloads.apply_written(body)
        for event in action.events:
            await self._record(ObjectReference(action.namespace, action.name, action.workload_uid), event)

    async def delete_workload(self, action: DeleteWorkload) -> None:
        try:
            await self._writer.delete_workload(action.namespace, action.name, action.workload_uid)
        except NotFoundError:
            self._cache.workloads.remove(action.workload_uid, "")
            return
        mark_deleting(self._cache.workloads, action.workload_uid)

    async def _patch_pod(self, namespace: str, name: str, uid: str, patch: Sequence[Json]) -> Json:
        with rejections_in(self._cache.pods, uid):
            body = await self._writer.patch_pod(namespace, name, patch)
        self._cache.pods.apply(body)
        return body

    async def _record(self, about: ObjectReference, event: Event) -> None:
        """Records an event. One that fails is not retried: nothing depends on it."""
        try:
            await self._recorder.record(about, event, self._clock.now())
        except ApiError as error:
            log.warning("cannot record event", reason=event.reason, error=str(error))
