"""Writes the actions of a decision, and applies each response to the cache.

Since responses are in the cache before the next pass, the operator never decides on a state that it has changed itself;
the watch only confirms the change later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube import patches
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import (
    ApiError,
    ConflictError,
    InvalidWriteError,
    NotFoundError,
    PatchConflictError,
    UnavailableError,
)
from gpufleet_operator.kube.events import POD_KIND, ObjectEventRecorder, ObjectReference
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import (
    Actions,
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
from gpufleet_operator.model.report_actions import ExplainPod, Reports, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.runtime.cached_write import mark_deleting, rejections_in
from gpufleet_operator.runtime.gang_check import check_gang
from gpufleet_operator.runtime.report_writer import ReportWriter

Report = WriteTelemetryConditions | WriteNodeCondition | ExplainPod
Action = (
    CreateService
    | RestoreService
    | CreatePod
    | DeletePod
    | DeleteWorkload
    | EvictPod
    | RestoreFinalizer
    | Reserve
    | ReleasePod
    | WriteStatus
    | Report
)
A = TypeVar(
    "A",
    CreateService,
    RestoreService,
    CreatePod,
    DeletePod,
    DeleteWorkload,
    EvictPod,
    RestoreFinalizer,
    Reserve,
    ReleasePod,
    WriteStatus,
    WriteTelemetryConditions,
    WriteNodeCondition,
    ExplainPod,
)

_MAX_PARALLEL = 16
_RETRIED = (InvalidWriteError, UnavailableError)
"""Errors after which an action is retried with backoff. An error that is not caught below ends the process."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    action: Action
    failure: str | None = None
    """Message of the error; None: no error."""
    conflict: bool = False
    """The object changed after the decision, so the next pass decides again. Not an error."""
    unconfirmed: bool = False
    """There was no response: the write may have been applied."""

    @property
    def succeeded(self) -> bool:
        return self.failure is None and not self.conflict


class Executor:
    """Writes actions, at most 16 at the same time.

    Args:
        writer: The apiserver.
        cache: Updated from each response.
        clock: Time of events.
        recorder: Writes events.
    """

    def __init__(self, writer: KubeWriter, cache: Cache, clock: ServerClock, recorder: ObjectEventRecorder) -> None:
        self._writer, self._cache, self._clock, self._recorder = writer, cache, clock, recorder
        self._reports = ReportWriter(writer, cache, clock, recorder)
        self._semaphore = asyncio.Semaphore(_MAX_PARALLEL)
        self._on_write: Callable[[], None] = lambda: None

    async def run(self, actions: Actions, on_write: Callable[[], None] = lambda: None) -> list[WriteOutcome]:
        """Writes all actions: changes of pods and reservations, releases of reserved pods, statuses, then reports.

        Expired workloads are deleted last.

        Args:
            actions: The decision.
            on_write: Called after each write, successful or not.
        """
        self._on_write = on_write
        services, restored, creates, deletes, evictions, finalizers, reserves = await asyncio.gather(
            self._all(actions.services, self._create_service),
            self._all(actions.restored_services, self._restore_service),
            self._creates(actions.creates),
            self._all(actions.deletes, self._delete),
            self._all(actions.evictions, self._evict),
            self._all(actions.restores, self._restore),
            self._all(actions.reserves, self._reserve),
        )
        reserved = {o.action.node for o in reserves if isinstance(o.action, Reserve) and o.succeeded}
        releases = await self._all([r for r in actions.releases if r.after <= reserved], self._release)
        outcomes = [*creates, *deletes, *reserves, *releases]
        # A status lists devices as reserved, so it is written only after the reservations of its workload.
        failed = [o.action for o in outcomes if not o.succeeded]
        incomplete = {a.workload_uid for a in failed if isinstance(a, CreatePod | DeletePod | ReleasePod)}
        incomplete |= {r.workload_uid for r in actions.releases if not r.after <= reserved}
        statuses = await self._all([s for s in actions.statuses if s.workload_uid not in incomplete], self._status)
        expired = await self._all(actions.expired, self._delete_workload)
        others = [*services, *restored, *evictions, *finalizers]
        return [*others, *outcomes, *statuses, *expired, *await self._report(actions.reports)]

    async def _report(self, reports: Reports) -> list[WriteOutcome]:
        telemetry, nodes, pods = await asyncio.gather(
            self._all(reports.telemetry, self._reports.telemetry),
            self._all(reports.nodes, self._reports.node),
            self._all(reports.pods, self._reports.pod),
        )
        return [*telemetry, *nodes, *pods]

    async def _creates(self, creates: Sequence[CreatePod]) -> list[WriteOutcome]:
        """Creates pods. The gangs of a namespace follow one another, so that the first gets the quota."""
        gangs: dict[str, dict[str, list[CreatePod]]] = {}
        for create in creates:
            if create.gang:
                gangs.setdefault(create.namespace, {}).setdefault(create.workload_uid, []).append(create)
        outcomes = await asyncio.gather(
            self._all([create for create in creates if not create.gang], self._create),
            *(self._create_gangs(list(found.values())) for found in gangs.values()),
        )
        return [outcome for of_namespace in outcomes for outcome in of_namespace]

    async def _create_gangs(self, gangs: Sequence[Sequence[CreatePod]]) -> list[WriteOutcome]:
        outcomes: list[WriteOutcome] = []
        for creates in gangs:
            checked = await self._one(creates[0], partial(self._check_gang, creates))
            if checked.succeeded:
                outcomes += await self._all(creates, self._create)
            else:
                outcomes += [replace(checked, action=create) for create in creates]
        return outcomes

    async def _check_gang(self, creates: Sequence[CreatePod], first: CreatePod) -> None:
        del first
        await check_gang(self._writer, creates)

    async def _all(self, actions: Sequence[A], write: Callable[[A], Awaitable[None]]) -> list[WriteOutcome]:
        return list(await asyncio.gather(*(self._one(action, write) for action in actions)))

    async def _one(self, action: A, write: Callable[[A], Awaitable[None]]) -> WriteOutcome:
        async with self._semaphore:
            outcome = await self._try(action, write)
        self._on_write()
        return outcome

    async def _try(self, action: A, write: Callable[[A], Awaitable[None]]) -> WriteOutcome:
        try:
            await write(action)
        except (PatchConflictError, ConflictError) as error:
            log.info("write conflict", action=action.key, error=str(error))
            return WriteOutcome(action, conflict=True)
        except _RETRIED as error:
            log.warning("write failed", action=action.key, error=str(error))
            return WriteOutcome(action, failure=str(error), unconfirmed=isinstance(error, UnavailableError))
        log.debug("write succeeded", action=action.key)
        return WriteOutcome(action)

    async def _create(self, action: CreatePod) -> None:
        try:
            body = await self._writer.create_pod(action.body)
        except NotFoundError as error:
            # The namespace was deleted, or the pod of an unconfirmed creation: decide again.
            raise ConflictError(str(error), error.code) from error
        self._cache.pods.apply(body)

    async def _create_service(self, action: CreateService) -> None:
        try:
            body = await self._writer.create_service(action.body)
        except NotFoundError as error:
            raise ConflictError(str(error), error.code) from error  # as in `_create`
        self._cache.services.apply(body)

    async def _restore_service(self, action: RestoreService) -> None:
        body = {**action.body, "metadata": {**action.body["metadata"], "uid": action.uid}}
        try:
            self._cache.services.apply(await self._writer.apply_service(body))
        except NotFoundError as error:
            self._cache.services.remove(action.uid, "")
            raise ConflictError(str(error), error.code) from error
        about = ObjectReference(body["metadata"]["namespace"], action.workload, action.workload_uid)
        note = f"restored labels and spec of Service {body['metadata']['name']}, which another client changed"
        await self._record(about, Event("ServiceRestored", note))

    async def _reserve(self, action: Reserve) -> None:
        with rejections_in(self._cache.telemetry, action.uid):
            body = await self._writer.patch_telemetry(action.node, patches.reserve(action))
        self._cache.telemetry.apply(body)

    async def _release(self, action: ReleasePod) -> None:
        with rejections_in(self._cache.pods, action.pod_uid):
            body = await self._writer.patch_pod(action.namespace, action.name, action.patch)
        self._cache.pods.apply(body)

    async def _restore(self, action: RestoreFinalizer) -> None:
        with rejections_in(self._cache.pods, action.uid):
            body = await self._writer.patch_pod(action.namespace, action.name, action.patch)
        self._cache.pods.apply(body)

    async def _delete(self, action: DeletePod) -> None:
        version = action.resource_version
        if action.patch:
            with rejections_in(self._cache.pods, action.uid):
                body = await self._writer.patch_pod(action.namespace, action.name, action.patch)
            self._cache.pods.apply(body)
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

    async def _evict(self, action: EvictPod) -> None:
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
        await self._record(about, Event("PodEvicted", f"evicted pod {action.name}: {action.message}"))

    async def _status(self, action: WriteStatus) -> None:
        try:
            body = await self._writer.patch_workload_status(action.namespace, action.name, patches.status(action))
        except PatchConflictError as error:
            self._cache.workloads.remove(action.workload_uid, "")
            self._cache.workloads.apply(error.current)
            raise
        except NotFoundError:
            self._cache.workloads.remove(action.workload_uid, "")
            return
        self._cache.workloads.apply(body)
        for event in action.events:
            await self._record(ObjectReference(action.namespace, action.name, action.workload_uid), event)

    async def _delete_workload(self, action: DeleteWorkload) -> None:
        try:
            await self._writer.delete_workload(action.namespace, action.name, action.workload_uid)
        except NotFoundError:
            self._cache.workloads.remove(action.workload_uid, "")
            return
        mark_deleting(self._cache.workloads, action.workload_uid)

    async def _record(self, about: ObjectReference, event: Event) -> None:
        """Records an event. One that fails is not retried: nothing depends on it."""
        try:
            await self._recorder.record(about, event, self._clock.now())
        except ApiError as error:
            log.warning("cannot record event", reason=event.reason, error=str(error))
