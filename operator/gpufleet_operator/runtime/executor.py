"""Sends the writes of a decision, and does not wait for slow ones.

A pass waits briefly for its writes, but not for statuses and reports, on which no placement depends. Writes that have
no response by then stay in flight: the next passes neither repeat nor contradict them, and the releases that wait for
them stay with them, as do the other reservations of a gang. Other writes that were not sent by then are dropped, and
decided again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, ConflictError, PatchConflictError, UnavailableError
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.kube.writer import KubeWriter
from gpufleet_operator.model.actions import (
    Action,
    Actions,
    CreatePod,
    CreateService,
    DeletePod,
    DeleteWorkload,
    EvictPod,
    ReleasePod,
    Reserve,
    RestoreFinalizer,
    RestoreService,
    WriteStatus,
)
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.report_actions import ExplainPod, WriteNodeCondition, WriteTelemetryConditions
from gpufleet_operator.runtime.action_writer import ActionWriter
from gpufleet_operator.runtime.claim_writer import ClaimWriter
from gpufleet_operator.runtime.gang_check import GangCheck
from gpufleet_operator.runtime.jobs import Job, JobFactory, WriteOutcome
from gpufleet_operator.runtime.lanes import IN_SCOPE, Lane, Lanes
from gpufleet_operator.runtime.pacing.held_statuses import HOLD, HeldStatuses
from gpufleet_operator.runtime.report_writer import ReportWriter

PATIENCE_SECONDS = 0.25
"""Time after the last response for which a pass waits for its other writes."""
MAX_PATIENCE = 4
"""Maximum wait as a multiple of that. Writes that are not sent by then are decided again."""
MAX_RELEASES = 3 * IN_SCOPE[Lane.RELEASE]
"""Releases of one namespace that earlier passes may have left, sent or not, when more are decided."""
_CHECK_SECONDS = 0.05
"""Interval at which a pass that waits for its writes checks whether the next one can begin."""
REPORT_PATIENCE_SECONDS = 0.0
"""Wait for statuses and reports after the others: long enough to send them, as far as the lanes allow."""
_REPORTS = (Lane.STATUS, Lane.REPORT)

log = structlog.get_logger(__name__)


class _NotLeadingError(Exception):
    """The Lease may have expired since the job began: nothing was sent."""


class Executor:
    """Sends actions, in lanes: see `lanes`.

    Args:
        writer: The apiserver.
        cache: Updated from each response.
        clock: Time of events.
        recorder: Writes events.
        may_write: Whether this process leads, asked before each write.
        patience_seconds: How long a pass waits for its writes.
        report_patience_seconds: How long it waits for statuses and reports after the others.
        hold_statuses: How long replaceable statuses are held back.
    """

    def __init__(
        self,
        writer: KubeWriter,
        cache: Cache,
        clock: ServerClock,
        recorder: ObjectEventRecorder,
        *,
        may_write: Callable[[], bool] = lambda: True,
        patience_seconds: float = PATIENCE_SECONDS,
        report_patience_seconds: float = REPORT_PATIENCE_SECONDS,
        hold_statuses: timedelta = HOLD,
    ) -> None:
        self._write_of = _writes(
            ActionWriter(writer, cache, clock, recorder),
            ClaimWriter(writer, cache, clock, recorder),
            ReportWriter(writer, cache, clock, recorder),
        )
        self._factory = JobFactory(self._write, lambda: GangCheck(writer))
        self._patience, self._report_patience = patience_seconds, report_patience_seconds
        self._may_write = may_write
        self._lanes = Lanes()
        self._held = HeldStatuses(cache.workloads, clock.now, hold_statuses)
        self._slow: dict[asyncio.Task[None], Job] = {}
        """Writes of earlier passes without a response."""
        self._responded: list[Job] = []
        self._error: BaseException | None = None
        self._responded_at = 0.0
        """Time of the last response to a write on which placements depend, by the clock of the event loop."""
        self._cache = cache

    async def run(
        self, actions: Actions, on_write: Callable[[], None] = lambda: None, pause_seconds: float = 0.0
    ) -> list[WriteOutcome]:
        """Sends all writes in the order of `JobFactory.jobs`; returns how they ended, without those still in flight.

        Args:
            actions: The decision.
            on_write: Called after each write, successful or not.
            pause_seconds: For how long no other pass runs anyway.
        """
        jobs = self._factory.jobs(self._held.join(actions, self._lanes.room(Lane.STATUS)))
        slow = Counter(job.lane_key for job in self._slow.values())
        for job in jobs:
            # With writes of earlier passes, which are slow. Some releases may wait, so that the next reservations are
            # sent meanwhile: they are kept after the pass, unlike what needs no reservation, such as a deletion.
            kept = job.lane_key.lane is Lane.RELEASE and bool(job.needs) and slow[job.lane_key] < MAX_RELEASES
            if self._lanes.full(job.lane_key) and not kept and not self._held.takes(job.action):
                job.drop()
        for job in _without_release(jobs):
            job.drop()
        self._remove_partial_gangs(jobs)
        tasks = {asyncio.create_task(self._run(job, on_write)): job for job in jobs if job.outcome is None}
        if tasks:
            try:
                await self._wait(tasks, max(self._patience, pause_seconds))
                self._raise_first(tasks)
            except BaseException:  # the pass is cancelled, or a write raised: neither leaves a task behind
                await _cancel(tasks)
                raise
            waiting = _waiting_for_sent(job for task, job in tasks.items() if not task.done())
            unsent = {
                task: job for task, job in tasks.items() if not task.done() and not job.sent and job not in waiting
            }
            await _cancel(unsent)
            for job in unsent.values():
                job.drop()
            if unsent:
                self._cache.dirty.set()
            self._keep_slow(tasks)
        left = (job for job in (*jobs, *self._slow.values()) if job.dropped or not (job.sent or job.ended.is_set()))
        queued = {creation.namespace for creation in actions.state.queued_creations.values()}
        self._held.busy = queued.union(*(job.namespaces for job in left))
        return [job.outcome for job in jobs if job.outcome is not None and not job.held]

    def due(self) -> datetime | None:
        """Returns when the next held status is due that can be sent; None: there is none."""
        return self._held.due(self._lanes.room(Lane.STATUS))

    def take_responded(self) -> tuple[list[WriteOutcome], frozenset[str]]:
        """Returns how writes of earlier passes ended since the last call, and their keys: see `in_flight`."""
        if self._error is not None:
            raise self._error
        responded, self._responded = self._responded, []
        outcomes = [job.outcome for job in responded if job.outcome is not None and not job.held]
        return outcomes, frozenset(key for job in responded for key in job.keys)

    def in_flight(self) -> tuple[frozenset[str], frozenset[str]]:
        """Returns the keys, and the UIDs of pods, that `PassState` lists as in flight."""
        jobs = self._slow.values()
        return frozenset(key for job in jobs for key in job.keys), frozenset(uid for job in jobs for uid in job.pods)

    def sent(self) -> Counter[Lane]:
        """Returns the number of writes without a response."""
        return self._lanes.sent()

    def room(self, lane: Lane) -> Mapping[str, int]:
        """Returns how many writes can be sent in each namespace in which some have no response yet."""
        return self._lanes.room(lane)

    async def close(self) -> None:
        """Cancels the writes in flight."""
        await _cancel(tuple(self._slow))

    def _remove_partial_gangs(self, jobs: Sequence[Job]) -> None:
        """Removes reservations for gangs whose others are not sent, from writes that are sent for another reason."""
        incomplete = {
            job.action.pod_uid
            for job in jobs
            if isinstance(job.action, ReleasePod) and job.action.together and job.dropped
            if any(need.dropped for need in job.needs if isinstance(need.action, Reserve))
        }
        for job in jobs:
            if isinstance(job.action, Reserve) and not job.dropped and not incomplete.isdisjoint(job.action.added):
                job.action = job.action.without(incomplete)
                job.write = partial(self._write, job.action)

    async def _wait(self, tasks: Mapping[asyncio.Task[None], Job], patience: float) -> None:
        """Returns when all have ended, or after a moment; also when all are under way and the cluster has changed."""
        reports = {task for task, job in tasks.items() if job.lane_key.lane in _REPORTS}
        others = tasks.keys() - reports
        loop = asyncio.get_running_loop()
        began = self._responded_at = loop.time()
        while others:
            until = max(
                began + patience, min(self._responded_at + self._patience, began + MAX_PATIENCE * self._patience)
            )
            if loop.time() >= until or (self._cache.dirty.is_set() and all(_under_way(tasks[one]) for one in others)):
                break
            seconds = min(until - loop.time(), _CHECK_SECONDS)
            done, others = await asyncio.wait(others, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.exception() is not None for task in done):
                break
        if reports:
            await asyncio.wait(reports, timeout=self._report_patience, return_when=asyncio.FIRST_EXCEPTION)

    def _raise_first(self, tasks: Mapping[asyncio.Task[None], Job]) -> None:
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error

    def _keep_slow(self, tasks: Mapping[asyncio.Task[None], Job]) -> None:
        loop = asyncio.get_running_loop()
        for task, job in tasks.items():
            if not task.done():
                self._slow[task] = job
                task.add_done_callback(self._keep_responded)
                if job.sent and job.lane_key.lane not in _REPORTS:
                    # The pass may have ended when all was sent.
                    loop.call_later(self._patience, self._log_slow, task)

    def _log_slow(self, task: asyncio.Task[None]) -> None:
        job = self._slow.get(task)
        if job is not None:
            log.info("write is slow", action=job.action.key, lane=str(job.lane_key.lane))

    def _keep_responded(self, task: asyncio.Task[None]) -> None:
        job = self._slow.pop(task)
        if task.cancelled():
            return
        self._error = self._error or task.exception()
        self._responded.append(job)
        self._cache.dirty.set()

    async def _run(self, job: Job, on_write: Callable[[], None]) -> None:
        try:
            for other in (*job.needs, *job.follows):
                await other.ended.wait()
            if not all(other.outcome is not None and other.outcome.succeeded for other in job.needs):
                job.drop()
                return
            if isinstance(job.action, WriteStatus) and self._held.takes(job.action):
                self._held.hold(job.action)
                job.held, job.outcome = True, WriteOutcome(job.action)
                return
            async with self._lanes.take(job.lane_key):
                if not self._may_write():
                    _log_unsent(job.action)
                    job.drop()
                    return
                job.sent = True
                if isinstance(job.action, WriteStatus):
                    self._held.drop(job.action.workload_uid)
                job.outcome = await self._try(job)
            if job.lane_key.lane not in _REPORTS:
                self._responded_at = asyncio.get_running_loop().time()
            on_write()
        finally:
            job.ended.set()

    async def _try(self, job: Job) -> WriteOutcome:
        action, limit = job.action, job.lane_key.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await job.write()
        except (PatchConflictError, ConflictError) as error:
            log.info("write conflict", action=action.key, error=str(error))
            return WriteOutcome(action, conflict=True)
        except ApiError as error:
            # Also for an unknown status: it fails this write only.
            log.warning("write failed", action=action.key, error=str(error), status=error.code)
            return WriteOutcome(action, failure=str(error), unconfirmed=isinstance(error, UnavailableError))
        except TimeoutError:
            message = f"no response within {limit:.0f} s"
            log.warning("write failed", action=action.key, error=message)
            return WriteOutcome(action, failure=message, unconfirmed=True)
        except _NotLeadingError:
            _log_unsent(action)
            return WriteOutcome(action, unsent=True)
        log.debug("write succeeded", action=action.key)
        return WriteOutcome(action)

    async def _write(self, action: Action) -> None:
        # Checked again: the checks that a job sends before its write may outlast the Lease.
        if not self._may_write():
            raise _NotLeadingError
        await self._write_of[type(action)](action)


def _writes(
    actions: ActionWriter, claims: ClaimWriter, reports: ReportWriter
) -> Mapping[type, Callable[[Any], Awaitable[None]]]:
    """Returns the method that writes each kind of action."""
    return {
        CreateService: actions.create_service,
        RestoreService: actions.restore_service,
        CreatePod: actions.create_pod,
        DeletePod: actions.delete_pod,
        DeleteWorkload: actions.delete_workload,
        EvictPod: actions.evict_pod,
        RestoreFinalizer: actions.restore_finalizer,
        Reserve: actions.reserve,
        CreateClaim: claims.create,
        DeleteClaim: claims.delete,
        ReleasePod: actions.release_pod,
        WriteStatus: actions.write_status,
        WriteTelemetryConditions: reports.telemetry,
        WriteNodeCondition: reports.node,
        ExplainPod: reports.pod,
    }


def _log_unsent(action: Action) -> None:
    log.warning("write not sent: the lease may have expired", action=action.key)


def _under_way(job: Job) -> bool:
    """Returns whether a write is sent, or is kept for one that is: see `_waiting_for_sent`."""
    return job.sent or (isinstance(job.action, CreateClaim | ReleasePod) and any(need.sent for need in job.needs))


def _without_release(jobs: Iterable[Job]) -> list[Job]:
    """Returns the reservations for releases and claims of which none is sent, because their lanes are full.

    The next pass would send each of them again, to prove it. One that also removes or replaces reservations is sent.
    So is one that adds a reservation for a pod that is not released yet, which may be of another namespace.
    """
    needed_by: dict[Job, list[Job]] = {}
    for job in jobs:
        if isinstance(job.action, CreateClaim | ReleasePod):
            for need in job.needs:
                needed_by.setdefault(need, []).append(job)
    return [
        job
        for job, others in needed_by.items()
        if isinstance(job.action, Reserve)
        and not (job.action.removed or job.action.replaced)
        and all(other.dropped for other in others)
        and {uid for other in others for uid in other.pods}.issuperset(job.action.added)
    ]


def _waiting_for_sent(jobs: Iterable[Job]) -> set[Job]:
    """Returns the releases of which a reservation has been sent, with the claims and reservations that they need.

    They are in flight like that one: if they were dropped, the next pass would send the reservations again as a proof,
    and an apiserver that always responds after the pass would never see a release. Nor would a gang ever be released
    that has more reservations than are sent in a pass.

    Args:
        jobs: Those that have not ended; a job comes after those that it needs.
    """
    found: set[Job] = set()
    for job in jobs:
        placing = isinstance(job.action, CreateClaim | ReleasePod) and not job.sent
        if placing and any(need.sent or need in found for need in job.needs):
            found.add(job)
            found.update(need for need in job.needs if not need.ended.is_set())
    return found


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels tasks, and returns when they have ended."""
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
