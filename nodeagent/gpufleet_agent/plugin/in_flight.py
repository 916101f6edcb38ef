"""One allocation in flight at most, and no listing of ours beside it.

Why: PodResources List lets the kubelet collect the devices of pods that are gone, and for that it makes its table of
allocated devices anew, out of the pods that have theirs. An allocation in flight (answered, not yet entered for its
pod) is not among them: its devices would be on offer again, while a pod is being given them. So our own poll waits
from the start of GetPreferredAllocation until shortly after the end of Allocate; the list inside
GetPreferredAllocation is harmless, because at that point nothing has been allocated yet: the kubelet, which admits one
pod after the other, has entered what the one before was given, or given it up. So that list is as good as a poll, and
where allocations leave no moment for one it takes its place (`Poller.take_over`).

One for all resources: the kubelet admits a pod's containers and resources one after the other, too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gpufleet_agent.plugin.types import AllocationResult, UnmanagedAllocation

EXPIRY_SECONDS = 10.0
"""How long an answer counts. The kubelet does nothing between the two calls, so this is for one that has died."""

SETTLE_SECONDS = 0.25
"""The kubelet enters the devices for the pod after it has received Allocate's answer, and that we can't see."""


class InFlightAllocation:
    """The answer to the last GetPreferredAllocation, until Allocate takes it."""

    def __init__(self, *, expiry_seconds: float = EXPIRY_SECONDS, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._expiry_seconds = expiry_seconds
        self._settle_seconds = settle_seconds
        self._ticket = 0
        self._answer: AllocationResult | None = None
        self._handed: UnmanagedAllocation | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._listing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> bool:
        """Whether our own poll has to wait."""
        return not self._idle.is_set()

    @property
    def ticket(self) -> int:
        """Of the last allocation that was started."""
        return self._ticket

    async def begin(self) -> int:
        """Start an allocation; returns its ticket once no poll of ours is under way any more.

        An earlier one that never came to its end is forgotten: the kubelet, which admits pods one after the other,
        has given it up, and what is still answered to it counts no more.
        """
        self._ticket += 1
        ticket, self._answer, self._handed = self._ticket, None, None
        self._idle.clear()
        self._end_after(self._expiry_seconds)
        # A poll that began before us is over in a moment; no new one begins, for the way there is barred above.
        async with self._listing:
            return ticket

    def answered(self, ticket: int, answer: AllocationResult) -> None:
        """Remember what was answered."""
        if ticket == self._ticket:
            self._answer = answer
            self._end_after(self._expiry_seconds)

    def abandon(self, ticket: int) -> None:
        """The allocation will not come to its end."""
        if ticket == self._ticket:
            self._end()

    def take(self) -> AllocationResult | None:
        """The answer that Allocate must match, once; None: there is none, or it has expired."""
        answer, self._answer = self._answer, None
        self._idle.clear()
        self._end_after(self._settle_seconds)
        return answer

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """While what Allocate hands over is put in place, which may take its time: the kubelet enters it after that."""
        ticket = self._ticket
        self._end_after(self._expiry_seconds)
        try:
            yield
        finally:
            if ticket == self._ticket:
                self._idle.clear()
                self._end_after(self._settle_seconds)

    def refused(self, ticket: int) -> None:
        """Allocate gave nothing, so the kubelet has nothing to enter."""
        if ticket == self._ticket:
            self._end()

    def handed(self, grant: UnmanagedAllocation) -> None:
        """Remember what was given, for the containers of the same pod that come next."""
        self._handed = grant
        asyncio.get_running_loop().call_later(self._expiry_seconds, self._forget, grant)

    def again(self, asked: frozenset[str]) -> UnmanagedAllocation | None:
        """What was just given, as far as it is asked for again; None: it is not.

        What an init container had, the kubelet gives to the pod's next containers without asking which devices we
        prefer. All others it asks about first, so Allocate alone for these devices comes from the same pod.
        """
        handed = self._handed
        if handed is None or not asked or not asked <= set(handed.ids):
            return None
        pairs = [(uuid, each) for uuid, each in zip(handed.devices, handed.ids, strict=True) if each in asked]
        slots = tuple(each for _, each in pairs) if handed.slots else ()
        return UnmanagedAllocation(tuple(uuid for uuid, _ in pairs), slots)

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """A moment for a listing of our own: no allocation is in flight, and one that begins waits for the end."""
        while True:
            await self._idle.wait()
            async with self._listing:
                # Between the wait's end and the lock's, an allocation may have begun.
                if self._idle.is_set():
                    yield
                    return

    def _forget(self, grant: UnmanagedAllocation) -> None:
        if self._handed is grant:
            self._handed = None

    def _end_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answer = None
        self._idle.set()
