"""Limits how many writes are sent at the same time, so that slow writes delay only their own namespace or workload.

An admission webhook may hang for one namespace, or the writes of one node may hang. Each namespace has lanes of its
own, and within them each workload has a limit for the creation of its pods.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from gpufleet_operator.kube.leader_election import WRITE_SECONDS


class Lane(StrEnum):
    """Writes that share limits."""

    RESERVE = "reserve"
    RELEASE = "release"
    CREATE = "create"
    REMOVE = "remove"
    STATUS = "status"
    REPORT = "report"


IN_SCOPE: Mapping[Lane, int] = {
    Lane.RESERVE: 32,
    Lane.RELEASE: 16,
    Lane.CREATE: 16,
    Lane.REMOVE: 16,
    Lane.STATUS: 16,
    Lane.REPORT: 16,
}
"""Writes at the same time in one namespace, or of cluster-scoped objects."""

IN_CLUSTER: Mapping[Lane, int] = {Lane.STATUS: 64, Lane.REPORT: 32}
"""Writes at the same time in all namespaces: statuses and reports must not delay placements."""

CREATES_OF_WORKLOAD = 4
"""Creations at the same time for one workload."""

PLACEMENT_TIMEOUT_SECONDS = WRITE_SECONDS
"""Timeout of a reservation, a claim or a release: until its response, a device may be reserved for the pod.

It is not longer because the Lease is valid for at least this time when a write begins.
"""


_CLUSTER = "*"
"""No namespace and no uid has this name."""


@dataclass(frozen=True, slots=True)
class LaneKey:
    """The limits that a write counts against.

    Args:
        lane: The kind of write.
        scope: Namespace; empty for cluster-scoped objects.
        workload: UID of the workload whose own limit applies as well; empty: none.
    """

    lane: Lane
    scope: str = ""
    workload: str = ""

    @property
    def timeout_seconds(self) -> float | None:
        """Returns how long a response may take; None: as long as the client waits."""
        return PLACEMENT_TIMEOUT_SECONDS if self.lane in (Lane.RESERVE, Lane.RELEASE) else None

    def limits(self) -> dict[tuple[Lane, str, str], int]:
        """Returns all limits that apply, the narrower one first."""
        found = {(self.lane, self.scope, self.workload): CREATES_OF_WORKLOAD} if self.workload else {}
        found[self.lane, self.scope, ""] = IN_SCOPE[self.lane]
        if self.lane in IN_CLUSTER:
            found[self.lane, _CLUSTER, _CLUSTER] = IN_CLUSTER[self.lane]
        return found


class Lanes:
    """Counts writes. A limit exists while writes are sent or wait within it."""

    def __init__(self) -> None:
        self._semaphores: dict[tuple[Lane, str, str], asyncio.Semaphore] = {}
        self._users: Counter[tuple[Lane, str, str]] = Counter()
        self._sent: Counter[tuple[Lane, str, str]] = Counter()

    def full(self, key: LaneKey) -> bool:
        """Returns True when a write would have to wait for another one to end."""
        return any(self._sent[one] >= limit for one, limit in key.limits().items())

    def sent(self) -> Counter[Lane]:
        """Returns the number of writes without a response."""
        found: Counter[Lane] = Counter()
        for (lane, _, workload), number in self._sent.items():
            if not workload:
                found[lane] += number
        return found

    def room(self, lane: Lane) -> dict[str, int]:
        """Returns how many writes can be sent in each scope in which some have no response yet."""
        return {
            scope: max(0, IN_SCOPE[lane] - number)
            for (of, scope, workload), number in self._sent.items()
            if of is lane and not workload and scope != _CLUSTER
        }

    @asynccontextmanager
    async def take(self, key: LaneKey) -> AsyncIterator[None]:
        """Waits until the write may be sent, and counts it until the block ends."""
        async with AsyncExitStack() as stack:
            for one, limit in key.limits().items():
                await stack.enter_async_context(self._one(one, limit))
            yield

    @asynccontextmanager
    async def _one(self, key: tuple[Lane, str, str], limit: int) -> AsyncIterator[None]:
        semaphore = self._semaphores.setdefault(key, asyncio.Semaphore(limit))
        self._users[key] += 1
        try:
            async with semaphore:
                self._sent[key] += 1
                try:
                    yield
                finally:
                    self._sent[key] -= 1
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._sent[key], self._semaphores[key]
