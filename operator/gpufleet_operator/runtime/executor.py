"""Carries out a decision, and folds what the apiserver answers into the caches at once.

Because every answer goes into the cache before the next pass, the operator never decides twice on a state that it has
changed itself; the watch only confirms it later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube import patches
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import (
    ApiError,
    ConflictError,
    InvalidWriteError,
    LostRaceError,
    NotFoundError,
    UnavailableError,
)
from gpufleet_operator.kube.events import About, Recorder
from gpufleet_operator.kube.writer import Cluster
from gpufleet_operator.model.actions import Actions, CreatePod, DeletePod, Event, ReleasePod, Reserve, WriteStatus

Action = CreatePod | DeletePod | Reserve | ReleasePod | WriteStatus
A = TypeVar("A", CreatePod, DeletePod, Reserve, ReleasePod, WriteStatus)

_PARALLEL = 16
_RETRIED = (InvalidWriteError, UnavailableError)
"""Failures that are remembered and tried again later. Anything else that isn't caught below ends the process."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action."""

    action: Action
    failure: str | None = None
    lost: bool = False
    """Decided on a state that had changed: nothing is wrong, look again."""
    unanswered: bool = False
    """It may have been carried out."""

    @property
    def done(self) -> bool:
        """True when it was carried out."""
        return self.failure is None and not self.lost


class Executor:
    """Writes to the cluster, at most 16 requests at a time."""

    def __init__(self, cluster: Cluster, cache: Cache, clock: ServerClock, recorder: Recorder) -> None:
        self._cluster, self._cache, self._clock, self._recorder = cluster, cache, clock, recorder
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._beat: Callable[[], None] = lambda: None

    async def run(self, actions: Actions, beat: Callable[[], None] = lambda: None) -> list[Outcome]:
        """All of it, in order: make, delete and reserve; release what got its devices; report what went well.

        Args:
            actions: the decision.
            beat: called after each write, however it ended.
        """
        self._beat = beat
        creates, deletes, reserves = await asyncio.gather(
            self._all(actions.creates, self._create),
            self._all(actions.deletes, self._delete),
            self._all(actions.reserves, self._reserve),
        )
        reserved = {o.action.node for o in reserves if isinstance(o.action, Reserve) and o.done}
        releases = await self._all([r for r in actions.releases if r.after <= reserved], self._release)
        outcomes = [*creates, *deletes, *reserves, *releases]
        # A status tells of devices as reserved: it waits until they are.
        unsure = {o.action.workload_uid for o in outcomes if not isinstance(o.action, Reserve) and not o.done}
        unsure |= {r.workload_uid for r in actions.releases if not r.after <= reserved}
        statuses = await self._all([s for s in actions.statuses if s.workload_uid not in unsure], self._status)
        return [*outcomes, *statuses]

    async def _all(self, actions: Sequence[A], carry_out: Callable[[A], Awaitable[None]]) -> list[Outcome]:
        return list(await asyncio.gather(*(self._one(action, carry_out) for action in actions)))

    async def _one(self, action: A, carry_out: Callable[[A], Awaitable[None]]) -> Outcome:
        async with self._slots:
            outcome = await self._tried(action, carry_out)
        self._beat()
        return outcome

    async def _tried(self, action: A, carry_out: Callable[[A], Awaitable[None]]) -> Outcome:
        try:
            await carry_out(action)
        except (LostRaceError, ConflictError) as error:
            log.info("lost a race", action=action.key, error=str(error))
            return Outcome(action, lost=True)
        except _RETRIED as error:
            log.warning("write failed", action=action.key, error=str(error))
            return Outcome(action, failure=str(error), unanswered=isinstance(error, UnavailableError))
        log.debug("done", action=action.key)
        return Outcome(action)

    async def _create(self, action: CreatePod) -> None:
        try:
            body = await self._cluster.create_pod(action.body)
        except NotFoundError as error:
            # The namespace is gone, or the pod that our lost creation had made: decide again.
            raise ConflictError(str(error), error.code) from error
        self._cache.read_pod(body)

    async def _reserve(self, action: Reserve) -> None:
        try:
            body = await self._cluster.patch_telemetry(action.node, patches.reserve(action))
        except LostRaceError as error:
            self._cache.read_telemetry(error.current)
            raise
        except NotFoundError as error:
            self._cache.telemetry.remove(action.uid, "")
            raise ConflictError(str(error), error.code) from error
        self._cache.read_telemetry(body)

    async def _release(self, action: ReleasePod) -> None:
        try:
            body = await self._cluster.patch_pod(action.namespace, action.name, action.patch)
        except LostRaceError as error:
            self._cache.read_pod(error.current)
            raise
        except NotFoundError as error:
            self._cache.pods.remove(action.pod_uid, "")
            raise ConflictError(str(error), error.code) from error
        self._cache.read_pod(body)

    async def _delete(self, action: DeletePod) -> None:
        try:
            await self._cluster.delete_pod(action.namespace, action.name, action.uid, action.resource_version)
        except NotFoundError:
            self._cache.pods.remove(action.uid, "")
            return
        pod = self._cache.pods.items.get(action.uid)
        if pod is not None:
            self._cache.pods.put(replace(pod, deleting=True))
        await self._tell(
            About(action.namespace, action.workload, action.workload_uid),
            Event(action.fault, f"pod {action.name}: {action.message}", warning=action.fault.is_trouble),
        )

    async def _status(self, action: WriteStatus) -> None:
        try:
            body = await self._cluster.patch_workload_status(action.namespace, action.name, patches.status(action))
        except LostRaceError as error:
            self._cache.workloads.remove(action.workload_uid, "")
            self._cache.read_workload(error.current)
            raise
        except NotFoundError:
            self._cache.workloads.remove(action.workload_uid, "")
            return
        self._cache.read_workload(body)
        for event in action.events:
            await self._tell(About(action.namespace, action.name, action.workload_uid), event)

    async def _tell(self, about: About, event: Event) -> None:
        """Events are for people: one that can't be written is lost, and nothing else."""
        try:
            await self._recorder.tell(about, event, self._clock.now())
        except ApiError as error:
            log.warning("event not written", reason=event.reason, error=str(error))
