"""Holds statuses back for a short time, because a later status of the same workload often replaces them.

A workload whose creation, placement and start follow one another within this time costs one write instead of four.
While pods of a namespace wait for creation or placement, its statuses wait longer: each write would delay a pod.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gpufleet_operator.cache.workloads.workload_store import WorkloadStore
from gpufleet_operator.model.actions import Actions, Event, WriteStatus
from gpufleet_operator.runtime.lanes import IN_SCOPE, Lane

HOLD = timedelta(seconds=2)
"""Delay after the last change."""
MAX_HOLD = timedelta(seconds=10)
"""Maximum delay after the first change."""
BUSY_HOLD = timedelta(seconds=30)
"""Maximum delay while pods of the namespace wait for their creation, reservation or release."""
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
        self.busy: Collection[str] = ()
        """Namespaces in which pods wait for their creation, reservation or release."""

    def due(self, room: Mapping[str, int]) -> datetime | None:
        """Returns when the next one is to be written; None: none is held back, or its namespace has no room.

        Args:
            room: See `join`. The response to an earlier status makes room.
        """
        sendable = (held for held in self._held.values() if _room(room, held.action) > 0)
        return min(map(self._due, sendable), default=None)

    def join(self, actions: Actions, room: Mapping[str, int]) -> Actions:
        """Returns the decision with the held statuses that are due.

        If the decision replaces a held status, the events of both are recorded with the new one.

        Args:
            actions: The decision.
            room: How many statuses can be sent in each namespace in which some have no response yet. Further ones stay
                held back, so they neither delay those of other namespaces nor are decided again.
        """
        due = self._due_now(actions, room)
        late = {action.workload_uid for action in due}
        decided = [self._joined(action, late=action.workload_uid in late) for action in actions.statuses]
        known = {action.workload_uid for action in decided}
        return replace(actions, statuses=(*decided, *(action for action in due if action.workload_uid not in known)))

    def _due_now(self, actions: Actions, room: Mapping[str, int]) -> list[WriteStatus]:
        """Returns the first ones that are due and can be sent beside the statuses of the decision."""
        now, left = self._now(), dict(room)
        decided = {action.workload_uid: action for action in actions.statuses if not action.progress}
        for action in decided.values():
            left[action.namespace] = _room(left, action) - 1
        found: list[WriteStatus] = []
        for held in sorted(self._held.values(), key=lambda held: held.since):
            action = held.action
            if self._due(held) <= now and action.workload_uid not in decided and _room(left, action) > 0:
                left[action.namespace] = _room(left, action) - 1
                found.append(replace(action, progress=False))
        return found[:_MAX_PER_PASS]

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
        if held.action.namespace in self.busy:
            return held.since + BUSY_HOLD
        return min(held.changed + self._hold, held.since + MAX_HOLD)

    def _joined(self, action: WriteStatus, *, late: bool) -> WriteStatus:
        held = self._held.get(action.workload_uid)
        if held is None:
            return action
        latest: dict[str, Event] = {event.reason: event for event in (*held.action.events, *action.events)}
        return replace(action, events=tuple(latest.values()), progress=action.progress and not late)


def _room(room: Mapping[str, int], action: WriteStatus) -> int:
    return room.get(action.namespace, IN_SCOPE[Lane.STATUS])
