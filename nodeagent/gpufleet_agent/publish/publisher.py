"""Keeps the status in the cluster up to date, and confirms it by a Lease while nothing changes."""

import asyncio
import random
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

import structlog

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError, TelemetryApi
from gpufleet_agent.kube.model import ObjectFormatError, TelemetryObject
from gpufleet_agent.kube.telemetry_watch import TelemetryWatch
from gpufleet_agent.publish.deadband import Significance, significance
from gpufleet_agent.publish.lease import LeaseRenewer
from gpufleet_agent.publish.payload import Status
from gpufleet_agent.publish.rate_limit import (
    LastWrite,
    WriteCause,
    WritePolicy,
    after_failed_renewal,
    after_renewal,
    due_cause,
    first_write,
    may_renew,
    next_write,
)
from gpufleet_agent.publish.steady import still_holds
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.backoff import backoff
from gpufleet_agent.runtime.instruments import Instruments
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
"""Interval at which readings are compared with the last write."""


class StatusInput(Protocol):
    """Input of a status, observed at one time."""

    def build(self) -> Status:
        """Returns the status."""

    def may_differ(self, written: Self, stale_seconds: float) -> bool:
        """Returns False only if `significance` of the two statuses is certainly NONE."""

    def has_recurrence(self, written: Self) -> bool:
        """Returns whether a device with a fault or warning had another event since `written`."""


Input = TypeVar("Input", bound=StatusInput)


class Publisher(Generic[Input]):
    """Writes the status.

    Args:
        api: The object in the cluster.
        telemetry: The object as last read; it also creates the object.
        observe: Returns the input of the status as of now, without I/O; None if not enough is known yet.
        changes: Notified of changes that must not wait for the next tick.
        policy: How often to write.
        counters: Counts writes.
        rng: Source of jitter.
        lease: Confirms the last report at heartbeats at which it still holds; None: each heartbeat is a report.
    """

    def __init__(
        self,
        *,
        api: TelemetryApi,
        telemetry: TelemetryWatch,
        observe: Callable[[], Input | None],
        changes: VersionSignal,
        policy: WritePolicy,
        counters: Instruments,
        rng: random.Random,
        lease: LeaseRenewer | None = None,
    ) -> None:
        self._api = api
        self._telemetry = telemetry
        self._observe = observe
        self._changes = changes
        self._policy = policy
        self._counters = counters
        self._rng = rng
        self._lease = lease
        self._published: Status | None = None
        self._observed: Input | None = None
        """Input of `_published`."""
        self._published_to: str | None = None
        self._generation_since: float | None = None
        """When the generation of reservations was read that is not published yet, by the clock of the event loop."""
        self.attempted: float | None = None
        """`observedAt` of the newest status sent, whether it arrived or not; in seconds since the epoch."""
        self._last: LastWrite | None = None
        self._failures = 0
        self._not_before = 0.0

    @property
    def published(self) -> bool:
        """Whether a status was written since the start."""
        return self._published is not None

    async def run(self, beat: Callable[[], None]) -> None:
        """Writes whenever a write is due; calls `beat` in each iteration."""
        while True:
            beat()
            seen = self._changes.version
            await self.step()
            wait = self._seconds_to_next_step(asyncio.get_running_loop().time())
            # An urgent change right after a write is due after the minimum interval, not at the next tick.
            if await self._changes.wait_for(seen, wait) and self._last is not None:
                await asyncio.sleep(self._last.at + self._policy.min_interval - asyncio.get_running_loop().time())

    def _seconds_to_next_step(self, now: float) -> float:
        """Returns the seconds to the next tick, but at least to the end of the minimum interval."""
        soonest = 0.0 if self._last is None else self._last.at + self._policy.min_interval - now
        return max(soonest, seconds_to_next_tick(now, TICK_SECONDS))

    async def step(self) -> None:
        """Writes if a write is due. At rest that is a renewal of the Lease."""
        now = asyncio.get_running_loop().time()
        current = self._telemetry.current
        if current is None or now < self._not_before:
            return
        # Observed right before it is written: states that were current while the apiserver was away are skipped.
        observed = self._observe()
        if observed is None:
            return
        cause = self._cause(observed, now)
        if cause is WriteCause.HEARTBEAT and await self._confirm(observed, current, now):
            return
        if cause is not None:
            await self._write(observed, cause, built=now)

    async def _confirm(self, observed: Input, current: TelemetryObject, now: float) -> bool:
        """Renews the Lease if the last report still holds. Returns False if a report is due instead."""
        lease, last, published, policy = self._lease, self._last, self._published, self._policy
        if lease is None or last is None or published is None or self._failures:
            return False
        # The response to a report has the newest object, the one to a renewal does not.
        if not self._telemetry.followed or current.uid != self._published_to or not may_renew(policy, last, now):
            return False
        # An administrator acknowledges the events until the report, so a later one has to be in another.
        if self._observed is None or observed.has_recurrence(self._observed):
            return False
        if not still_holds(published, observed.build(), current, policy.stale, policy.heartbeat):
            return False
        if await lease.renew(current.uid, published["observedAt"]):
            self._last = after_renewal(self._policy, last, now, self._rng.random())
        else:
            self._last = after_failed_renewal(last, now)
            await self.step()  # observed again, because a failure may take many seconds
        return True

    def _cause(self, observed: Input, now: float) -> WriteCause | None:
        current = self._telemetry.current
        if self._published is None or self._last is None or current is None:
            return WriteCause.URGENT
        if current.uid != self._published_to and now - self._last.at >= self._policy.min_interval:
            return WriteCause.URGENT  # another object of the same name, without a status yet
        self._note_generation(self._published, now)
        significance = self._significance(observed, self._published)
        return due_cause(self._policy, self._last, significance, now, generation_since=self._generation_since)

    def _note_generation(self, published: Status, now: float) -> None:
        if self._telemetry.generation == published.get("assignmentsGeneration"):
            self._generation_since = None
        elif self._generation_since is None:
            self._generation_since = now

    def _significance(self, observed: Input, published: Status) -> Significance:
        if self._observed is not None and not observed.may_differ(self._observed, self._policy.stale):
            return Significance.NONE
        return significance(published, observed.build(), self._policy.stale)

    async def _write(self, observed: Input, cause: WriteCause, *, built: float) -> None:
        status = observed.build()
        self.attempted = timestamps.to_epoch(status.get("observedAt"))
        try:
            written = await self._api.apply_status(status)
        except (KubeError, ObjectFormatError) as error:
            if isinstance(error, ObjectFormatError):
                self._counters.decode_errors.labels("Object").inc()
            await self._back_off(error, cause)
            return
        now = asyncio.get_running_loop().time()
        jitter = self._rng.random()
        self._last = (
            next_write(self._policy, self._last, now, jitter, cause=cause, built=built)
            if self._last
            else first_write(self._policy, now, jitter, built)
        )
        self._published, self._observed, self._published_to = status, observed, written.uid
        self._failures = 0
        self._counters.status_writes.labels(cause.value, "Written").inc()
        # The response has the newest generation. If it increased, it is reported by a later write.
        self._telemetry.update(written)
        self._generation_since = None
        self._note_generation(status, now)

    async def _back_off(self, error: KubeError | ObjectFormatError, cause: WriteCause) -> None:
        self._failures += 1
        self._counters.status_writes.labels(cause.value, "Failed").inc()
        policy = self._policy
        wait = backoff(self._failures, self._rng.random(), first=policy.min_interval, longest=policy.max_backoff)
        self._not_before = asyncio.get_running_loop().time() + wait
        log.warning("status not written", error=str(error), failures=self._failures, next_try_seconds=round(wait, 1))
        if isinstance(error, ObjectNotFoundError):
            await self._telemetry.recreate()
