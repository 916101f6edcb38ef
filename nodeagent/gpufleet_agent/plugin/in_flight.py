"""At most one allocation in flight, and no PodResources poll during it.

PodResources List makes the kubelet release the devices of pods that have ended: it rebuilds its table of allocated
devices from the pods that already have theirs. An allocation in flight (preferred, but not yet recorded for its pod)
is not in that table, so a List would put its devices on offer again while a pod is getting them. The poll therefore
waits from the start of GetPreferredAllocation until shortly after the end of Allocate.

The List inside GetPreferredAllocation is harmless. Nothing has been allocated at that point, and the kubelet, which
admits one pod after the other, has recorded or dropped the previous allocation. That list is as good as a poll and
replaces it where allocations follow each other without a pause (`PodResourcesPoller.accept`).

One instance serves all resources, because the kubelet also handles a pod's containers and resources one after the
other.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gpufleet_agent.plugin.types import AllocationResult, UnmanagedAllocation

EXPIRY_SECONDS = 10.0
"""How long a result is valid. The kubelet does nothing between the two calls, so only a dead kubelet takes longer."""

SETTLE_SECONDS = 0.25
"""Time for the kubelet to record the devices after it has received the response to Allocate: not observable."""


class InFlightAllocation:
    """Holds the result of the last GetPreferredAllocation until Allocate takes it."""

    def __init__(self, *, expiry_seconds: float = EXPIRY_SECONDS, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._expiry_seconds = expiry_seconds
        self._settle_seconds = settle_seconds
        self._ticket = 0
        self._result: AllocationResult | None = None
        self._reusable: UnmanagedAllocation | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._polling = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether polls have to wait."""
        return not self._idle.is_set()

    @property
    def ticket(self) -> int:
        """Number of the last allocation that began."""
        return self._ticket

    async def begin(self) -> int:
        """Begins an allocation and returns its ticket once no poll is running.

        An earlier one that was not completed is dropped: the kubelet admits pods one after the other, so it no longer
        waits for that one, and a late result for it is ignored. The new one does not expire before it has its result:
        the caller calls `set_result` or `end`, however long its work takes.
        """
        self._ticket += 1
        ticket, self._result, self._reusable = self._ticket, None, None
        self._idle.clear()
        self._stop_timer()
        try:
            # A running poll ends soon, and no other one can begin because `_idle` is cleared.
            async with self._polling:
                return ticket
        except asyncio.CancelledError:
            self.end(ticket)
            raise

    def set_result(self, ticket: int, result: AllocationResult) -> None:
        """Stores the result of GetPreferredAllocation for Allocate."""
        if ticket == self._ticket:
            self._result = result
            self._end_after(self._expiry_seconds)

    def take_result(self) -> AllocationResult | None:
        """Returns the result once; None: there is none, or it has expired."""
        result, self._result = self._result, None
        self._idle.clear()
        self._end_after(self._settle_seconds)
        return result

    def end(self, ticket: int) -> None:
        """Ends an allocation of which the kubelet will record nothing."""
        if ticket == self._ticket:
            self._end()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Extends the allocation while its device files are put in place: the kubelet records it after that."""
        ticket = self._ticket
        self._stop_timer()
        try:
            yield
        finally:
            if ticket == self._ticket:
                self._idle.clear()
                self._end_after(self._settle_seconds)

    def keep_for_reuse(self, allocation: UnmanagedAllocation) -> None:
        """Keeps an allocation for the next containers of the same pod."""
        self._reusable = allocation
        asyncio.get_running_loop().call_later(self._expiry_seconds, self._forget, allocation)

    def reuse(self, device_ids: frozenset[str]) -> UnmanagedAllocation | None:
        """Returns the part of the kept allocation with these device IDs; None: it does not contain all of them.

        The kubelet gives the devices of an init container to the pod's next containers without calling
        GetPreferredAllocation. It calls it for all other devices, so an Allocate without it comes from the same pod.
        """
        kept = self._reusable
        if kept is None or not device_ids or not device_ids <= set(kept.ids):
            return None
        pairs = [(uuid, each) for uuid, each in zip(kept.devices, kept.ids, strict=True) if each in device_ids]
        slots = tuple(each for _, each in pairs) if kept.slots else ()
        return UnmanagedAllocation(tuple(uuid for uuid, _ in pairs), slots)

    @asynccontextmanager
    async def idle(self) -> AsyncIterator[None]:
        """Waits until no allocation is in flight. One that begins inside the context waits for its end."""
        while True:
            await self._idle.wait()
            async with self._polling:
                # An allocation may have begun between the end of the wait and the lock.
                if self._idle.is_set():
                    yield
                    return

    def _forget(self, allocation: UnmanagedAllocation) -> None:
        if self._reusable is allocation:
            self._reusable = None

    def _end_after(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._stop_timer()
        self._result = None
        self._idle.set()
