"""Keeps state from pass to pass, so that the cost of a pass depends on the changes only."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpufleet_operator.decide.incremental.region import Seeds
from gpufleet_operator.fleet.kept_fleet import KeptFleet
from gpufleet_operator.model.cluster.changes import Subject
from gpufleet_operator.model.state_types import PassState
from gpufleet_operator.placement.model import Diagnosis, Request

REFRESH_INTERVAL = timedelta(seconds=10)
"""Maximum age of the explanation of a gated pod while the fleet changes."""


class Moments:
    """When the decision on an object may change although nothing else does."""

    def __init__(self) -> None:
        self._at: dict[Subject, datetime] = {}
        self._heap: list[tuple[datetime, Subject]] = []

    def set(self, subject: Subject, at: datetime | None) -> None:
        """Sets or, with None, removes the moment of an object."""
        if at is None:
            self._at.pop(subject, None)
        elif self._at.get(subject) != at:
            self._at[subject] = at
            heapq.heappush(self._heap, (at, subject))

    def get(self, subject: Subject) -> datetime | None:
        return self._at.get(subject)

    def take(self, now: datetime) -> Iterator[Subject]:
        """Removes and yields the objects whose moment has come."""
        while self._heap and self._heap[0][0] <= now:
            at, subject = heapq.heappop(self._heap)
            if self._at.get(subject) == at:
                del self._at[subject]
                yield subject

    def next(self) -> datetime | None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


class Refresh:
    """Goes round the workloads with gated pods, whose explanation depends on the whole fleet and on the time."""

    def __init__(self) -> None:
        self._seen: dict[str, datetime] = {}
        """Uid -> when the workload was last looked at, in this order."""
        self._last: datetime | None = None

    def look_at(self, uids: Iterable[str], gated: set[str], now: datetime) -> None:
        """Notes that these workloads were looked at; `gated` are those of them with a gated pod."""
        for uid in uids:
            self._seen.pop(uid, None)
            if uid in gated:
                self._seen[uid] = now

    def due(self, now: datetime) -> set[str]:
        """Returns the workloads to look at now: as many as it takes to see all of them in one interval."""
        passed = REFRESH_INTERVAL if self._last is None else min(REFRESH_INTERVAL, now - self._last)
        self._last = now
        number = 1 + int(len(self._seen) * (passed / REFRESH_INTERVAL))
        found: set[str] = set()
        for uid, at in self._seen.items():
            if len(found) >= number or now - at < REFRESH_INTERVAL:
                break
            found.add(uid)
        return found

    def next(self) -> datetime | None:
        first = next(iter(self._seen.values()), None)
        return None if first is None else first + REFRESH_INTERVAL


@dataclass(slots=True)
class Kept:
    """The results of earlier passes, for every object that no later change concerns.

    A pass changes it in place. If the pass ends with an exception, it is not used any more.
    """

    state: PassState
    fleet: KeptFleet = field(default_factory=KeptFleet)
    waits: dict[str, str] = field(default_factory=dict)
    """What each gated pod waits for, by uid."""
    unplaced: dict[str, Diagnosis] = field(default_factory=dict)
    """By workload uid."""
    parked: dict[str, Request | None] = field(default_factory=dict)
    """Workloads that got no devices, and their request; None: it is invalid."""
    moments: Moments = field(default_factory=Moments)
    renewals: Moments = field(default_factory=Moments)
    """When telemetry becomes stale if no other arrives, and when messages that were held back are written."""
    backing_off: frozenset[str] = frozenset()
    """Keys of the writes that were backing off in the last pass."""
    refresh: Refresh = field(default_factory=Refresh)
    late_reports: dict[str, None] = field(default_factory=dict)
    """Nodes whose conditions differ and were not written, because there were too many, in the order of their turns."""
    again: Seeds = field(default_factory=Seeds)
    """Subjects that the last pass acted on, or may earmark devices for."""

    def due(self, now: datetime) -> datetime | None:
        """Returns when to decide again even if nothing changes."""
        moments = (self.moments.next(), self.renewals.next(), self.refresh.next())
        return min((max(now, moment) for moment in moments if moment is not None), default=None)


def unsettled(state: PassState) -> set[str]:
    """Returns the workloads whose decision depends on more than their objects: they are looked at in each pass."""
    rejections = state.rejections
    found = {uid for uid, _ in (*rejections.pauses, *state.pending_creates)}
    return found.union(uid for uid, _, _ in rejections.backoffs)
