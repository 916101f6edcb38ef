"""Keeps the status in the cluster equal to what the agent knows, as far as it matters."""

import asyncio
import random
from collections.abc import Callable

import structlog

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError, TelemetryApi
from gpufleet_agent.kube.model import ObjectFormatError
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.publish.deadband import significance
from gpufleet_agent.publish.payload import Status
from gpufleet_agent.publish.rate_limit import (
    LastWrite,
    WriteCause,
    WritePolicy,
    backoff,
    due_cause,
    first_write,
    next_write,
)
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
"""How often readings are compared with what was written last."""


class Publisher:
    """Writes the status.

    Args:
        api: The object in the cluster.
        telemetry: What is known of the object; it is the one that creates it.
        build: The status as of now, from memory; None: not enough is known yet to tell the truth.
        changes: Notified when something changed that can't wait for the next tick.
        policy: How often to write.
        counters: Where writes are counted.
        rng: Source of jitter.
    """

    def __init__(
        self,
        *,
        api: TelemetryApi,
        telemetry: TelemetryWatch,
        build: Callable[[], Status | None],
        changes: VersionSignal,
        policy: WritePolicy,
        counters: Instruments,
        rng: random.Random,
    ) -> None:
        self._api = api
        self._telemetry = telemetry
        self._build = build
        self._changes = changes
        self._policy = policy
        self._counters = counters
        self._rng = rng
        self._published: Status | None = None
        self._published_to: str | None = None
        self.attempted: float | None = None
        """`observedAt` of the newest status that was sent, whether it arrived or not; in seconds since the epoch."""
        self._last: LastWrite | None = None
        self._failures = 0
        self._not_before = 0.0

    @property
    def published(self) -> bool:
        """Whether a status was written since the start."""
        return self._published is not None

    async def run(self, beat: Callable[[], None]) -> None:
        """Write whenever it is due, forever; calls `beat` each time round."""
        while True:
            beat()
            seen = self._changes.version
            await self.step()
            try:
                async with asyncio.timeout(self._rest(asyncio.get_running_loop().time())):
                    await self._changes.wait(seen)
            except TimeoutError:
                continue
            # An urgent change just after a write is due when the interval is over, not at the next tick.
            if self._last is not None:
                await asyncio.sleep(self._last.at + self._policy.min_interval - asyncio.get_running_loop().time())

    def _rest(self, now: float) -> float:
        """How long to wait for the next look: to the next tick, but no write may follow another so soon."""
        soonest = 0.0 if self._last is None else self._last.at + self._policy.min_interval - now
        return max(soonest, seconds_to_next_tick(now, TICK_SECONDS))

    async def step(self) -> None:
        """Write if it is due."""
        now = asyncio.get_running_loop().time()
        if self._telemetry.current is None or now < self._not_before:
            return
        # Built just before it is written: what an absent apiserver missed in between needs no telling.
        status = self._build()
        if status is None:
            return
        cause = self._cause(status, now)
        if cause is not None:
            await self._write(status, cause, built=now)

    def _cause(self, status: Status, now: float) -> WriteCause | None:
        current = self._telemetry.current
        if self._published is None or self._last is None or current is None:
            return WriteCause.URGENT
        if current.uid != self._published_to and now - self._last.at >= self._policy.min_interval:
            return WriteCause.URGENT  # another object of the same name, without a status yet
        return due_cause(self._policy, self._last, significance(self._published, status, self._policy.stale), now)

    async def _write(self, status: Status, cause: WriteCause, *, built: float) -> None:
        self.attempted = timestamps.to_epoch(status.get("observedAt"))
        try:
            written = await self._api.apply_status(status)
        except (KubeError, ObjectFormatError) as error:
            if isinstance(error, ObjectFormatError):
                self._counters.decode_errors.labels("Object").inc()
            await self._failed(error, cause)
            return
        now = asyncio.get_running_loop().time()
        jitter = self._rng.random()
        self._last = (
            next_write(self._policy, self._last, now, jitter, cause=cause, built=built)
            if self._last
            else first_write(self._policy, now, jitter, built)
        )
        self._published, self._published_to = status, written.uid
        self._failures = 0
        self._counters.status_writes.labels(cause.value, "LastWrite").inc()
        # The answer tells the newest generation; should it have risen, the next write follows at once.
        self._telemetry.update(written)

    async def _failed(self, error: KubeError | ObjectFormatError, cause: WriteCause) -> None:
        self._failures += 1
        self._counters.status_writes.labels(cause.value, "Failed").inc()
        wait = backoff(self._policy, self._failures, self._rng.random())
        self._not_before = asyncio.get_running_loop().time() + wait
        log.warning("status not written", error=str(error), failures=self._failures, next_try_seconds=round(wait, 1))
        if isinstance(error, ObjectNotFoundError):
            await self._telemetry.recreate()
