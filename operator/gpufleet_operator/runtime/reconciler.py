"""The one task that decides: waits for a change, takes a snapshot, decides, executes, and records the results.

Passes never overlap, so each decision is based on the results of the one before. There is no fixed delay: the first
change after an idle time is handled immediately. Under load, a pass waits as long as the previous one took, at most
half a second, so that events coalesce and half of the processor stays free.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.incremental.decide_changes import decide_changes
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.decide.state import drop_pending_creates, record_results
from gpufleet_operator.decide.template_check import check_templates
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import Actions, CreatePod, ReleasePod
from gpufleet_operator.model.cluster.changes import Changes
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits, PassState, TemplateCheck
from gpufleet_operator.runtime.executor import WriteOutcome
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.request_mix import RequestMix

_MIN_PAUSE_SECONDS = 0.01
_MAX_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


Decide = Callable[[Snapshot, Kept | None, Changes, ClusterIndex], tuple[Actions, Kept | None]]
"""See `decide_changes`."""


class ActionRunner(Protocol):
    """Writes the actions of a decision; see `Executor`."""

    async def run(self, actions: Actions, on_write: Callable[[], None] = ...) -> list[WriteOutcome]: ...


class Reconciler:
    """Runs reconcile passes.

    Args:
        cache: State of the cluster.
        executor: Writes decisions.
        limits: Settings that decisions depend on.
        clock: Clock of the apiserver.
        metrics: Records each pass.
        name_seed: Returns a random string for each pass.
        resync_interval_seconds: Maximum time between two passes.
        decide: Makes the decision of a pass.
    """

    def __init__(
        self,
        cache: Cache,
        executor: ActionRunner,
        limits: Limits,
        clock: ServerClock,
        metrics: Metrics,
        *,
        name_seed: Callable[[], str],
        resync_interval_seconds: float,
        decide: Decide = decide_changes,
    ) -> None:
        self._cache, self._executor, self._limits = cache, executor, limits
        self._clock, self._metrics, self._name_seed = clock, metrics, name_seed
        self._decide = decide
        self._resync_interval = resync_interval_seconds
        self._state = PassState()
        self._kept: Kept | None = None
        self._templates: dict[str, TemplateCheck] = {}
        self._request_mix = RequestMix(limits.resources)
        self._first_seen: dict[str, float] = {}
        self._inconsistencies: set[str] = set()
        self.last_progress: float | None = None
        """When a pass or a write last completed, by the clock of the event loop; None before the end of the first pass.

        Writes count, because a pass may have hundreds, and each takes its timeout if the apiserver does not respond.
        """

    async def run(self) -> None:
        """Runs passes until cancelled. An unexpected error ends it."""
        loop = asyncio.get_running_loop()
        due: datetime | None = None
        while True:
            started = loop.time()
            due = await self.one_pass()
            self.last_progress = loop.time()
            await asyncio.sleep(min(_MAX_PAUSE_SECONDS, max(_MIN_PAUSE_SECONDS, self.last_progress - started)))
            await self._wait_for_change(due)

    async def one_pass(self) -> datetime | None:
        """Decides and executes once; returns the latest time of the next pass, None if there is none."""
        loop = asyncio.get_running_loop()
        actions = self.decide_once()
        self._track_gated_pods(actions.waits, loop.time())
        if not actions.empty:
            with self._metrics.reconcile_duration.labels("execute").time():
                outcomes = await self._executor.run(actions, self._record_progress)
            self._record_outcomes(outcomes, loop.time())
        return actions.due

    def decide_once(self) -> Actions:
        """Decides on what changed in the caches since the last call, and writes nothing."""
        self._cache.dirty.clear()
        changes, index = self._cache.tracker.take(), self._cache.tracker.index
        # An exception below ends the pass: what is kept may be half changed then, and is not used again.
        kept, self._kept = self._kept, None
        if kept is None:
            changes.everything = True
        snapshot = self._snapshot(changes)
        with self._metrics.reconcile_duration.labels("decide").time():
            actions, self._kept = self._decide(snapshot, kept, changes, index)
        self._state = actions.state
        self._metrics.record_decision(snapshot, actions)
        for inconsistency in set(actions.inconsistencies) - self._inconsistencies:
            log.error("inconsistent telemetry", inconsistency=inconsistency)
        self._inconsistencies = set(actions.inconsistencies)
        for workload, trace in actions.unexpected_errors.items():
            log.error("unexpected error in template validation", workload=workload, traceback=trace)
        return actions

    def decide_from_scratch(self) -> None:
        """Lets the next pass use nothing of earlier ones but their state, as after a list of all objects."""
        self._kept = None

    def _snapshot(self, changes: Changes) -> Snapshot:
        workloads, limits = self._cache.workloads.items, self._limits
        changed = self._templates.keys() | workloads.keys() if changes.everything else changes.workloads
        for uid in changed:
            known, workload = self._templates.pop(uid, None), workloads.get(uid)
            if workload is not None:
                checked = {} if known is None else {uid: known}
                self._templates |= check_templates({uid: workload}, checked, limits.resources, limits.pod_policy)
        return self._cache.snapshot(
            now=self._clock.now(),
            name_seed=self._name_seed(),
            templates=self._templates,
            state=self._state,
            limits=limits,
            mix=self._request_mix.update(workloads, self._cache.telemetry.items, self._templates, changed),
        )

    def _record_progress(self) -> None:
        if self.last_progress is not None:
            self.last_progress = asyncio.get_running_loop().time()

    async def _wait_for_change(self, due: datetime | None) -> None:
        wait = self._resync_interval
        if due is not None:
            wait = min(wait, max(0.0, (due - self._clock.now()).total_seconds()))
        try:
            async with asyncio.timeout(wait):
                await self._cache.dirty.wait()
        except TimeoutError:
            pass  # the decision may also depend on the time

    def _record_outcomes(self, outcomes: Sequence[WriteOutcome], now: float) -> None:
        results = [
            (o.action.key, o.failure, "network" if o.unconfirmed else "apiserver") for o in outcomes if not o.conflict
        ]
        state = record_results(self._state, results, self._clock.now())
        created = [o.action for o in outcomes if isinstance(o.action, CreatePod) and not o.unconfirmed]
        self._state = drop_pending_creates(state, [(a.workload_uid, a.replica) for a in created])
        if self._kept is not None:
            self._kept.state = self._state
        self._metrics.record_outcomes(outcomes)
        for outcome in outcomes:
            if isinstance(outcome.action, ReleasePod) and outcome.succeeded:
                uid = outcome.action.pod_uid
                self._metrics.placement_duration.observe(now - self._first_seen.get(uid, now))
                log.info(
                    "pod released",
                    pod=outcome.action.name,
                    namespace=outcome.action.namespace,
                    node=outcome.action.node,
                )
        if any(o.failure is not None for o in outcomes):
            self._cache.dirty.set()  # the next pass reports the failure

    def _track_gated_pods(self, gated: Collection[str], now: float) -> None:
        """Records when each gated pod was first seen."""
        self._first_seen = {uid: self._first_seen.get(uid, now) for uid in gated}
