"""Holds statuses back for a short time, because a later status of the same workload often replaces them.

A workload whose creation, placement and start follow one another within this time costs one write instead of four.
While pods wait for creation or placement, statuses wait longer, because each write would delay a pod.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gpufleet_operator.cache.workloads.workload_store import WorkloadStore
from gpufleet_operator.model.actions import Actions, Event, WriteStatus

HOLD = timedelta(seconds=2)
"""Delay after the last change."""
MAX_HOLD = timedelta(seconds=10)
"""Maximum delay after the first change."""
BUSY_HOLD = timedelta(seconds=30)
"""Maximum delay while pods wait for their creation, reservation or release."""
_MAX_PER_PASS = 64


@dataclass(frozen=True, slots=True)
class _Held:
    action: WriteStatus
    since: datetime
    """Time of the first change that is not written yet."""
    changed: datetime


class HeldStatuses:
    """The statuses that are held back.

    Args:
        store: Shows held statuses to the next decisions.
        now: Returns the time.
        hold: Delay after the last change; 0: no status is held back.
    """

    def __init__(self, store: WorkloadStore, now: Callable[[], datetime], hold: timedelta = HOLD) -> None:
        self._store, self._now, self._hold = store, now, hold
        self._held: dict[str, _Held] = {}
        """By uid of the workload."""
        self.busy = False
        """Pods wait for their creation, reservation or release."""

    def due(self) -> datetime | None:
        """Returns when the next one is to be written; None: none is held back."""
        return min(map(self._due, self._held.values()), default=None)

    def join(self, actions: Actions) -> Actions:
        """Returns the decision with the held statuses that are due.

        If the decision replaces a held status, the events of both are recorded with the new one.
        """
        now = self._now()
        waiting = sorted((held for held in self._held.values() if self._due(held) <= now), key=lambda held: held.since)
        due = [replace(held.action, progress=False) for held in waiting[:_MAX_PER_PASS]]
        late = {action.workload_uid for action in due}
        decided = [self._joined(action, late=action.workload_uid in late) for action in actions.statuses]
        known = {action.workload_uid for action in decided}
        return replace(actions, statuses=(*decided, *(action for action in due if action.workload_uid not in known)))

    def takes(self, action: object) -> bool:
        """Returns True for a status that is to be held back."""
        return isinstance(action, WriteStatus) and action.progress and bool(self._hold)

    def hold(self, action: WriteStatus) -> None:
        """Holds a status back, in place of an earlier one of its workload."""
        uid, now = action.workload_uid, self._now()
        before = self._held.get(uid)
        self._held[uid] = _Held(action, before.since if before is not None else now, now)
        self._store.hold(uid, action.status)

    def drop(self, workload_uid: str) -> None:
        """Forgets the status of a workload, because it or a later one is sent."""
        self._held.pop(workload_uid, None)

    def _due(self, held: _Held) -> datetime:
        return held.since + BUSY_HOLD if self.busy else min(held.changed + self._hold, held.since + MAX_HOLD)

    def _joined(self, action: WriteStatus, *, late: bool) -> WriteStatus:
        held = self._held.get(action.workload_uid)
        if held is None:
            return action
        latest: dict[str, Event] = {event.reason: event for event in (*held.action.events, *action.events)}
        return replace(action, events=tuple(latest.values()), progress=action.progress and not late)
