"""The one task that decides: waits until something changed, takes a snapshot, decides, carries it out, remembers.

Passes never overlap, so a decision is always made on the results of the one before. There is no fixed delay: the
first change after a rest is acted on at once, and under load a pass waits as long as the last one took, at most
half a second, so that events coalesce and half of the processor stays free.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.decide import state
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.model.actions import CreatePod, ReleasePod
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_operator.runtime.executor import Executor, Outcome
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.runtime.request_mix import Demand

_SHORTEST_GAP = 0.01
_LONGEST_GAP = 0.5

log = structlog.get_logger(__name__)


class Reconciler:
    """Runs passes.

    Args:
        cache: what is known of the cluster.
        executor: carries decisions out.
        limits: settings of decisions.
        clock: the apiserver's time.
        metrics: told of every pass.
        salt: randomness, one string per pass.
        resync_interval_seconds: longest rest between passes.
    """

    def __init__(
        self,
        cache: Cache,
        executor: Executor,
        limits: Limits,
        clock: ServerClock,
        metrics: Metrics,
        *,
        name_seed: Callable[[], str],
        resync_interval_seconds: float,
    ) -> None:
        self._cache, self._executor, self._limits = cache, executor, limits
        self._clock, self._metrics, self._salt = clock, metrics, name_seed
        self._sweep = resync_interval_seconds
        self._memory = PassState()
        self._demand = Demand(limits.resources)
        self._appeared: dict[str, float] = {}
        self._troubles: set[str] = set()
        self.last_sign: float | None = None
        """When a pass or one of its writes last ended, by the event loop's clock; None before the first pass is over.

        An apiserver that swallows requests holds each one up for its time-out, and a pass may have hundreds.
        """

    async def run(self) -> None:
        """Pass after pass, until cancelled. An error that nobody planned for ends it."""
        loop = asyncio.get_running_loop()
        due: datetime | None = None
        while True:
            started = loop.time()
            due = await self.one_pass()
            self.last_sign = loop.time()
            await asyncio.sleep(min(_LONGEST_GAP, max(_SHORTEST_GAP, self.last_sign - started)))
            await self._rest(due)

    async def one_pass(self) -> datetime | None:
        """Decide once and carry it out; returns when to decide again at the latest, if that is known."""
        loop = asyncio.get_running_loop()
        self._cache.dirty.clear()
        mix = self._demand.mix(self._cache.workloads.items.values(), self._cache.telemetry.items.values())
        snapshot = self._cache.snapshot(
            now=self._clock.now(), name_seed=self._salt(), memory=self._memory, limits=self._limits, mix=mix
        )
        with self._metrics.reconcile_duration.labels("decide").time():
            actions = decide(snapshot)
        self._memory = actions.memory
        self._metrics.record_decision(snapshot, actions)
        self._notice(loop.time())
        for trouble in set(actions.inconsistencies) - self._troubles:
            log.error("fleet contradicts itself", trouble=trouble)
        self._troubles = set(actions.inconsistencies)
        for workload, trace in actions.unexpected_errors.items():
            log.error("a template can't be used for a reason that no rule foresaw", workload=workload, traceback=trace)
        if not actions.empty:
            with self._metrics.reconcile_duration.labels("execute").time():
                outcomes = await self._executor.run(actions, self._beat)
            self._learn(outcomes, loop.time())
        return actions.due

    def _beat(self) -> None:
        if self.last_sign is not None:
            self.last_sign = asyncio.get_running_loop().time()

    async def _rest(self, due: datetime | None) -> None:
        wait = self._sweep
        if due is not None:
            wait = min(wait, max(0.0, (due - self._clock.now()).total_seconds()))
        try:
            async with asyncio.timeout(wait):
                await self._cache.dirty.wait()
        except TimeoutError:
            pass  # time itself may have changed the decision

    def _learn(self, outcomes: Sequence[Outcome], now: float) -> None:
        told = [(o.action.key, o.failure, "network" if o.unanswered else "apiserver") for o in outcomes if not o.lost]
        memory = state.record(self._memory, told, self._clock.now())
        made = [o.action for o in outcomes if isinstance(o.action, CreatePod) and not o.unanswered]
        self._memory = state.answered(memory, [(a.workload_uid, a.replica) for a in made])
        self._metrics.record_outcomes(outcomes)
        for outcome in outcomes:
            if isinstance(outcome.action, ReleasePod) and outcome.done:
                uid = outcome.action.pod_uid
                self._metrics.placement_duration.observe(now - self._appeared.get(uid, now))
                log.info(
                    "released", pod=outcome.action.name, namespace=outcome.action.namespace, node=outcome.action.node
                )
        if any(o.failure is not None for o in outcomes):
            self._cache.dirty.set()  # the failure itself may have to be reported

    def _notice(self, now: float) -> None:
        """Remember since when each gated pod is there."""
        self._appeared = {uid: self._appeared.get(uid, now) for uid, pod in self._cache.pods.items.items() if pod.gates}
