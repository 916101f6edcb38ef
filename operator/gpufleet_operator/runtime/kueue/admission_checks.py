"""Answers Kueue's AdmissionChecks outside of the passes, because an answer depends on written reservations."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from operator import itemgetter

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.kueue.answers import answers, unanswered
from gpufleet_operator.kube import paths
from gpufleet_operator.kube.api import Api, Sleep
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ApiError, ConflictError, NotFoundError, UnavailableError
from gpufleet_operator.kube.events import ObjectEventRecorder, ObjectReference
from gpufleet_operator.kube.informer import Informer
from gpufleet_operator.kube.kueue_patches import active_check, check_answer
from gpufleet_operator.model.actions import Event
from gpufleet_operator.model.kueue.names import CHECK_CONTROLLER
from gpufleet_operator.model.kueue.objects import AdmissionCheck, CheckAnswer, KueueWorkload
from gpufleet_operator.runtime.pacing.paused_writes import PausedWrites
from gpufleet_operator.runtime.pacing.scoped_writes import ScopedWrites, Write

_INTERVAL_SECONDS = 0.5
_RETRY_SECONDS = 30.0
"""Pause after a rejected write: a policy may reject it for a long time."""
_MISSING_SECONDS = 30.0
"""Time between two attempts to list kinds that do not exist yet."""

log = structlog.get_logger(__name__)


class AdmissionChecks:
    """Watches Workloads and AdmissionChecks of Kueue, and answers the checks of this operator.

    Args:
        api: The apiserver.
        cache: State of the cluster; the Workloads and AdmissionChecks are added to it.
        clock: Clock of the apiserver.
        recorder: Writes events.
        may_write: Whether this process leads, asked before each write.
        scale_up: Whether placeholder pods are created, so that quota is held until an autoscaler has added nodes.
        sleep: Waits between two rounds.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        clock: ServerClock,
        recorder: ObjectEventRecorder,
        *,
        may_write: Callable[[], bool],
        scale_up: bool = False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._api, self._cache, self._clock, self._recorder = api, cache, clock, recorder
        self._may_write, self._scale_up, self._sleep = may_write, scale_up, sleep
        self._paused: PausedWrites[str] = PausedWrites()
        """Paths of the writes that failed."""
        self._writes = ScopedWrites()
        checks, workloads = cache.admission_checks, cache.kueue_workloads
        self._checks: Informer[AdmissionCheck] = Informer(api, paths.ADMISSION_CHECKS, {}, checks)
        self._workloads: Informer[KueueWorkload] = Informer(api, paths.KUEUE_WORKLOADS, {}, workloads)

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            ApiError: The apiserver rejects a list or a watch (no permission).
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(self._checks))
                tasks.create_task(self._follow(self._workloads))
                while True:
                    if self._may_write():
                        await self.answer()
                    await self._sleep(_INTERVAL_SECONDS)
        finally:
            await self._writes.close()

    async def answer(self) -> None:
        """Writes the answers that are due. One that fails is decided again after a pause, and follows the others then.

        It does not wait for slow writes: an admission webhook may hang for one namespace.
        """
        cache, now = self._cache, self._clock.now()
        self._paused.start_round()
        own = {c.name: c for c in cache.admission_checks.items.values() if c.controller == CHECK_CONTROLLER}
        writes: list[tuple[str, str, Write]] = []
        for check in own.values():
            if not check.active:
                path = f"{paths.ADMISSION_CHECKS}/{check.name}/status"
                writes.append((path, f"check/{check.name}", partial(self._activate, path, check, now)))
        if next(unanswered(cache.kueue_workloads.items.values(), own), None) is not None:
            due = answers(
                tuple(cache.kueue_workloads.items.values()),
                own,
                cache.pods.items,
                cache.workloads.items,
                cache.tracker.index.nodes_reserved_for,
                now=now,
                scale_up=self._scale_up,
            )
            for each in due:
                namespace = each.workload.namespace
                path = f"{paths.kueue_workload(namespace, each.workload.name)}/status"
                writes.append((path, namespace, partial(self._answer, path, each, now)))
        ready = [
            (self._paused.failures(path), scope, write) for path, scope, write in writes if path not in self._paused
        ]
        ready.sort(key=itemgetter(0))
        await self._writes.run((scope, write) for _, scope, write in ready)

    async def _activate(self, path: str, check: AdmissionCheck, now: datetime) -> None:
        await self._apply(path, active_check(check, now), check.name)

    async def _answer(self, path: str, answer: CheckAnswer, now: datetime) -> None:
        name = f"{answer.workload.namespace}/{answer.workload.name}"
        if await self._apply(path, check_answer(answer, now), name, state=str(answer.state)):
            await self._explain(answer)

    async def _explain(self, answer: CheckAnswer) -> None:
        """Records an event with the reason of the returned quota on the GPUWorkload."""
        if answer.waiting is None:
            return
        about = ObjectReference(answer.waiting.namespace, answer.waiting.name, answer.waiting.uid)
        event = Event("QuotaReturned", f"quota returned to Kueue: {answer.message}")
        try:
            await self._recorder.record(about, event, self._clock.now())
        except ApiError as error:
            log.warning("cannot record event", reason=event.reason, error=str(error))

    async def _apply(self, path: str, body: dict[str, object], name: str, **facts: str) -> bool:
        """Returns whether the apiserver stored it."""
        if not self._may_write():
            return False
        try:
            stored = await self._api.apply(path, body)
        except ApiError as error:
            if isinstance(error, UnavailableError):
                self._paused.back_off(path)
            elif not isinstance(error, ConflictError):
                self._paused.pause(path, _RETRY_SECONDS)
            log.info("admission check not written", name=name, error=str(error))
            return False
        self._paused.succeeded(path)
        store = self._cache.kueue_workloads if body["kind"] == "Workload" else self._cache.admission_checks
        store.apply(stored)
        log.info("admission check written", name=name, **facts)
        return True

    async def _follow(self, informer: Informer[AdmissionCheck] | Informer[KueueWorkload]) -> None:
        """Follows a collection as soon as its kind exists."""
        while True:
            try:
                await informer.run(lambda: None)
            except NotFoundError as error:
                log.warning("Kueue is not installed", error=str(error))
                await self._sleep(_MISSING_SECONDS)
