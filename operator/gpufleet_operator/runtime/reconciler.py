"""The one task that decides: waits for a change, takes a snapshot, decides, executes, and records the results.

Passes never overlap, so each decision is based on the results of the one before. There is no fixed delay: the first
changes after an idle time are handled immediately, unless they are measurements only, which are collected for half a
second. Under load, a decision waits as long as the previous one used the processor, at most half a second, so that
events coalesce and half of the processor stays free. Writes are sent meanwhile.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide.incremental.decide_changes import QUEUE_INTERVAL, decide_changes
from gpufleet_operator.decide.incremental.kept import Kept
from gpufleet_operator.decide.state import drop_pending_creates, forget_unsent, record_results
from gpufleet_operator.decide.statuses import sent_now
from gpufleet_operator.decide.template_check import check_templates
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import Actions, CreatePod, ReleasePod
from gpufleet_operator.model.cluster.changes import Changes
from gpufleet_operator.model.cluster.cluster_index import ClusterIndex
from gpufleet_operator.model.cluster.telemetry_outage import TelemetryOutage, observe_outage
from gpufleet_operator.model.snapshot import UNLIMITED, Snapshot
from gpufleet_operator.model.state_types import Limits, PassState, TemplateCheck
from gpufleet_operator.runtime.jobs import WriteOutcome
from gpufleet_operator.runtime.lanes import Lane
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.pacing.pass_pause import PassPause
from gpufleet_operator.runtime.pacing.token_bucket import TokenBucket
from gpufleet_operator.runtime.request_mix import RequestMix

log = structlog.get_logger(__name__)

_STATUSES_PER_PASS = 32
"""Twice what one namespace may have in flight."""


MEASUREMENTS_SECONDS = 0.5
"""Maximum wait of new measurements for a decision. With 1,000 nodes, a pass has a dozen reports instead of one."""


Decide = Callable[[Snapshot, Kept | None, Changes, ClusterIndex], tuple[Actions, Kept | None]]
"""See `decide_changes`."""


class ActionRunner(Protocol):
    """Writes the actions of a decision; see `Executor`."""

    async def run(
        self, actions: Actions, on_write: Callable[[], None] = ..., pause_seconds: float = ...
    ) -> list[WriteOutcome]: ...

    def take_responded(self) -> tuple[list[WriteOutcome], frozenset[str]]: ...

    def in_flight(self) -> tuple[frozenset[str], frozenset[str]]: ...

    def sent(self) -> Mapping[Lane, int]: ...

    def room(self, lane: Lane) -> Mapping[str, int]: ...

    def due(self) -> datetime | None: ...


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
        status_budget: Limits the rate of statuses; without it they are not limited.
        processor_seconds: Returns the processor time that the thread of the event loop has used.
        sleep: Pauses between two passes.
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
        status_budget: TokenBucket | None = None,
        processor_seconds: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cache, self._executor, self._limits = cache, executor, limits
        self._clock, self._metrics, self._name_seed = clock, metrics, name_seed
        self._decide = decide
        self._processor_seconds, self._sleep = processor_seconds, sleep
        self._pause = PassPause()
        self._measured = False
        """Whether there are measurements that no decision has seen."""
        self._waits = False
        """Whether it waits for a change."""
        self._collected: asyncio.TimerHandle | None = None
        """Ends the wait when measurements were collected for long enough."""
        cache.telemetry.measured = self._note_measurements
        self._next_pass_at = 0.0
        """When the pause after the last decision ends, by the clock of the event loop."""
        self._status_budget = status_budget or TokenBucket(0, UNLIMITED)
        self._resync_interval = resync_interval_seconds
        self._state = PassState()
        self._kept: Kept | None = None
        self._templates: dict[str, TemplateCheck] = {}
        self._outage: TelemetryOutage | None = None
        self._staleness_suppressed = False
        """Whether the last pass suppressed the report of stale telemetry."""
        self._request_mix = RequestMix(limits.resources)
        self._first_seen: dict[str, float] = {}
        self._inconsistencies: set[str] = set()
        self._failed: dict[str, str] = {}
        """Uids of workloads whose decision failed -> the traceback that was logged."""
        self.runs = False
        """True from the start of the first pass: before, the process may be a standby."""
        self.last_progress: float | None = None
        """When a pass or a write last completed, by the clock of the event loop; None before the end of the first pass.

        Writes count, because a pass may have hundreds, and each takes its timeout if the apiserver does not respond.
        """

    async def run(self) -> None:
        """Runs passes until cancelled. An unexpected error ends it."""
        loop = asyncio.get_running_loop()
        due: datetime | None = None
        self.runs = True
        while True:
            due = await self.one_pass()
            self.last_progress = loop.time()
            await self._sleep(max(0.0, self._next_pass_at - loop.time()))
            await self._wait_for_change(due)

    async def one_pass(self) -> datetime | None:
        """Decides and executes once; returns the latest time of the next pass, None if there is none."""
        loop = asyncio.get_running_loop()
        self._record_responded(loop.time())
        before = self._processor_seconds()
        actions = self.decide_once()
        pause = self._pause.after(self._processor_seconds() - before)
        self._next_pass_at = loop.time() + pause
        self._track_gated_pods(actions.waits, loop.time())
        outcomes: Sequence[WriteOutcome] = ()
        if not actions.empty or self._has_held_status_due():
            with self._metrics.reconcile_duration.labels("execute").time():
                outcomes = await self._executor.run(actions, self._record_progress, pause)
            self._record_outcomes(outcomes, loop.time())
        unsent = Counter(o.action.namespace for o in outcomes if o.unsent and isinstance(o.action, ReleasePod))
        if unsent or self._state.unsent_releases:
            self._set_state(replace(self._state, unsent_releases=unsent))
        self._metrics.writes.record_in_flight(self._executor.sent())
        ends = self._outage.ends if self._outage is not None and self._staleness_suppressed else None
        # An outage that lasts because the apiserver is unavailable ends with its next response, at an unknown time.
        due = [actions.due, ends if ends is not None and ends > self._clock.now() else None, self._held_status_due()]
        return min((moment for moment in due if moment is not None), default=None)

    def _has_held_status_due(self) -> bool:
        held = self._executor.due()
        return held is not None and held <= self._clock.now()

    def _held_status_due(self) -> datetime | None:
        """Returns the time of the pass that writes the next held status."""
        held = self._executor.due()
        return None if held is None else max(held, self._clock.now() + QUEUE_INTERVAL)

    def _record_responded(self, now: float) -> None:
        """Records how writes of earlier passes ended, and which are still in flight."""
        outcomes, responded = self._executor.take_responded()
        self._record_outcomes(outcomes, now)
        keys, pods = self._executor.in_flight()
        full = frozenset(namespace for namespace, room in self._executor.room(Lane.CREATE).items() if not room)
        state = self._state
        if (keys, pods, responded, full) != (
            state.in_flight,
            state.pods_in_flight,
            state.responded,
            state.full_creations,
        ):
            self._set_state(
                replace(state, in_flight=keys, pods_in_flight=pods, responded=responded, full_creations=full)
            )
        self._cache.tracker.note_keys(responded)

    def _set_state(self, state: PassState) -> None:
        self._state = state
        if self._kept is not None:
            self._kept.state = state

    def decide_once(self) -> Actions:
        """Decides on what changed in the caches since the last call, and writes nothing."""
        self._cache.dirty.clear()
        self._measured = False
        changes, index = self._cache.tracker.take(), self._cache.tracker.index
        # An exception below ends the pass: what is kept may be half changed then, and is not used again.
        kept, self._kept = self._kept, None
        if kept is None:
            changes.everything = True
        self._observe_outage(changes)
        snapshot = self._snapshot(changes)
        with self._metrics.reconcile_duration.labels("decide").time():
            actions, self._kept = self._decide(snapshot, kept, changes, index)
        self._status_budget.take(len(sent_now(actions.statuses, self._limits)))
        self._state = actions.state
        self._metrics.record_decision(snapshot, actions)
        for inconsistency in set(actions.inconsistencies) - self._inconsistencies:
            log.error("inconsistent telemetry", inconsistency=inconsistency)
        self._inconsistencies = set(actions.inconsistencies)
        for workload, trace in actions.unexpected_errors.items():
            log.error("unexpected error in template validation", workload=workload, traceback=trace)
        failed = {uid: trace for uid, trace in actions.failed_decisions.items() if self._failed.get(uid) != trace}
        for uid, trace in failed.items():
            log.error("unexpected error in a decision", about=self._name_of(uid), traceback=trace)
        self._metrics.unexpected_errors.labels("decision").inc(len(failed))
        self._failed |= failed
        if self._failed:
            # Of pods and nodes as well, of which a report failed.
            known = (snapshot.workloads, snapshot.pods, snapshot.telemetry, snapshot.nodes)
            self._failed = {uid: trace for uid, trace in self._failed.items() if any(uid in each for each in known)}
        return actions

    def _name_of(self, identity: str) -> str:
        """Returns the name of the object with this uid, or name."""
        workload, pod = self._cache.workloads.items.get(identity), self._cache.pods.items.get(identity)
        if workload is not None:
            return f"GPUWorkload {workload.full_name}"
        return f"pod {pod.namespace}/{pod.name}" if pod is not None else identity

    def _observe_outage(self, changes: Changes) -> None:
        """Marks everything as changed when stale telemetry starts or stops to count as a fault of its node."""
        telemetry, now, before = self._cache.telemetry, self._clock.now(), self._outage
        self._outage = observe_outage(
            before,
            newest=telemetry.newest,
            heard_at=min(self._cache.heard_at.values(), default=None),
            nodes=sum(map(len, telemetry.nodes_with.values())),
            stale_after=self._limits.stale_after,
            read_at=self._cache.node_leases.read_at,
            now=now,
        )
        if (self._outage is None) != (before is None):
            log.warning("no telemetry arrives from any node" if before is None else "telemetry arrives again")
        self._metrics.telemetry_outage.set(self._outage is not None)
        suppressed = self._outage is not None and self._outage.suppresses_staleness(now)
        if suppressed != self._staleness_suppressed:
            changes.everything = True
        self._staleness_suppressed = suppressed

    def _snapshot(self, changes: Changes) -> Snapshot:
        workloads, limits = self._cache.workloads.items, self._limits
        changed = self._templates.keys() | workloads.keys() if changes.everything else changes.workloads
        known = {uid: check for uid in changed if (check := self._templates.pop(uid, None)) is not None}
        present = {uid: workloads[uid] for uid in changed if uid in workloads}
        self._templates |= check_templates(present, known, limits.resources, limits.pod_policy)
        return self._cache.snapshot(
            now=self._clock.now(),
            name_seed=self._name_seed(),
            templates=self._templates,
            state=self._state,
            limits=limits,
            mix=self._request_mix.update(workloads, self._cache.telemetry.items, self._templates, changed),
            outage=self._outage,
            status_budget=min(self._status_budget.available(), self._free_statuses()),
            status_room=self._executor.room(Lane.STATUS),
        )

    def _free_statuses(self) -> int:
        """Returns how many statuses can be sent: more would be dropped, and decided on again in each pass."""
        return max(1, _STATUSES_PER_PASS - self._executor.sent().get(Lane.STATUS, 0))

    def _record_progress(self) -> None:
        if self.last_progress is not None:
            self.last_progress = asyncio.get_running_loop().time()

    async def _wait_for_change(self, due: datetime | None) -> None:
        wait = self._resync_interval
        if due is not None:
            wait = min(wait, max(0.0, (due - self._clock.now()).total_seconds()))
        self._waits = True
        if self._measured:
            self._collect()
        try:
            async with asyncio.timeout(wait):
                await self._cache.dirty.wait()
        except TimeoutError:
            pass  # the decision may also depend on the time
        finally:
            self._waits = False
            if self._collected is not None:
                self._collected.cancel()

    def _note_measurements(self) -> None:
        """Requests a pass soon after new measurements, but not one for each report."""
        if not self._measured:
            self._measured = True
            if self._waits:
                self._collect()

    def _collect(self) -> None:
        self._collected = asyncio.get_running_loop().call_later(MEASUREMENTS_SECONDS, self._cache.dirty.set)

    def _record_outcomes(self, outcomes: Sequence[WriteOutcome], now: float) -> None:
        ended = [o for o in outcomes if not o.unsent]
        results = [
            (o.action.key, o.failure, "network" if o.unconfirmed else "apiserver") for o in ended if not o.conflict
        ]
        state = record_results(self._state, results, self._clock.now())
        created = [o.action for o in outcomes if isinstance(o.action, CreatePod) and not o.unconfirmed]
        state = drop_pending_creates(state, [(a.workload_uid, a.replica) for a in created])
        self._set_state(forget_unsent(state, [o.action for o in outcomes if o.unsent]))
        self._metrics.writes.record(ended)
        for outcome in ended:
            if isinstance(outcome.action, ReleasePod) and outcome.succeeded:
                uid = outcome.action.pod_uid
                self._metrics.writes.placement_duration.observe(now - self._first_seen.get(uid, now))
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
