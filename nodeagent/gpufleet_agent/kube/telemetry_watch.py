"""The node's own object in memory: kept by a watch, freshened by reads, never set back to an older version."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gpufleet_agent.kube.api import KubeError, ObjectNotFoundError, TelemetryApi
from gpufleet_agent.kube.model import Assignment, ObjectFormatError, TelemetryObject
from gpufleet_agent.runtime.version_signal import VersionSignal

log = structlog.get_logger(__name__)

MAX_BACKOFF_SECONDS = 30.0


class TelemetryWatch:
    """What the agent knows of its GPUTelemetry object.

    Args:
        api: The object in the cluster.
        changes: Told when the reservations, or the object itself, changed.
        rng: Jitter for the waits between attempts.
        observe: Called with every version that is newer than the one before, before anybody else sees it.
        unreadable: Called for every version that can't be read.
    """

    def __init__(
        self,
        api: TelemetryApi,
        changes: VersionSignal,
        rng: random.Random,
        observe: Callable[[TelemetryObject], None] = lambda _: None,
        *,
        unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._changes = changes
        self._rng = rng
        self._observe = observe
        self._unreadable = unreadable
        self.current: TelemetryObject | None = None
        self._known = asyncio.Event()

    @property
    def assignments(self) -> tuple[Assignment, ...] | None:
        """The reservations as last read; None: never read, so anything may be reserved."""
        if self.current is not None:
            return self.current.assignments
        return () if self._known.is_set() else None

    @property
    def generation(self) -> int | None:
        """`metadata.generation` of the object as last read."""
        return self.current.generation if self.current else None

    async def known(self) -> None:
        """Wait until the reservations have been read once."""
        await self._known.wait()

    def adopt(self, version: TelemetryObject) -> None:
        """Take over a version, unless a newer one is known already.

        A read and the watch race: an event that was on its way when the read was answered is older than the answer.
        """
        if self.current is not None and version.resource_version <= self.current.resource_version:
            return
        self._observe(version)
        before, self.current = self.current, version
        self._known.set()
        if before is None or (before.uid, before.generation) != (version.uid, version.generation):
            log.info("reservations read", generation=version.generation, assignments=len(version.assignments))
            self._changes.notify()

    async def refresh(self) -> None:
        """Read the object.

        Raises:
            KubeError: No answer, or a refusal.
            ObjectFormatError: What came is not a GPUTelemetry.
        """
        try:
            with self._counting():
                self.adopt(await self._api.get())
        except ObjectNotFoundError:
            self._forget()

    async def recreate(self) -> None:
        """Create the object that turned out to be missing; left to the next attempt when that fails, too."""
        with suppress(KubeError, ObjectFormatError):
            await self._ensure()

    async def run(self) -> None:
        """Make sure that the object exists, and follow it; forever."""
        ensured = False
        while True:
            # One round of attempts per connection, so that the waits start short again after each success.
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((KubeError, ObjectFormatError)),
                wait=wait_random_exponential(multiplier=0.5, max=MAX_BACKOFF_SECONDS),
                before_sleep=_log_retry,
            ):
                with attempt:
                    await self._make_sure(repair=not ensured)
                    ensured = True
            await self._follow()

    async def _make_sure(self, *, repair: bool) -> None:
        """Read the object and create it if missing; with `repair`, also see to its owner."""
        if repair:
            await self._ensure()
            return
        await self.refresh()
        if self.current is None:
            await self._ensure()

    async def _follow(self) -> None:
        """Watch until the watch ends, for whatever reason."""
        try:
            with self._counting():
                async with aclosing(self._api.watch()) as versions:
                    async for version in versions:
                        if version is None:
                            # With its Node, or by hand. In the first case `ensure` fails until there is a Node again.
                            log.warning("the GPUTelemetry object was deleted")
                            self._forget()
                            return
                        self.adopt(version)
        except (KubeError, ObjectFormatError) as error:
            log.warning("the watch on our object broke", error=str(error))
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))

    async def _ensure(self) -> None:
        with self._counting():
            self.adopt(await self._api.ensure())

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except ObjectFormatError:
            self._unreadable()
            raise

    def _forget(self) -> None:
        self._known.set()
        if self.current is not None:
            self.current = None
            self._changes.notify()


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("the apiserver does not let us follow our object", error=str(error), attempt=state.attempt_number)
