"""Caches the node's GPUTelemetry object: updated by a watch and by reads, never replaced by an older version."""

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
    """Cache of the node's GPUTelemetry object.

    Args:
        api: The object in the cluster.
        changes: Notified when the reservations, or the object itself, changed.
        rng: Jitter of the waits between attempts.
        observe: Called with each version that is newer than the one before, before it is visible elsewhere.
        unreadable: Called for each version that cannot be decoded.
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
        self.followed = False
        """Whether the object was read and is watched since. If not, `current` may be old."""
        self._synced = asyncio.Event()

    @property
    def assignments(self) -> tuple[Assignment, ...] | None:
        """The reservations as last read; None: never read, so any device may be reserved."""
        if self.current is not None:
            return self.current.assignments
        return () if self._synced.is_set() else None

    def cordoned(self, now: float) -> frozenset[str]:
        """Returns the UUIDs of devices that are out of service. `now` is in seconds since the epoch."""
        cordons = self.current.cordons if self.current else ()
        return frozenset(cordon.uuid for cordon in cordons if cordon.until is None or now < cordon.until)

    @property
    def generation(self) -> int | None:
        """`metadata.generation` of the object as last read."""
        return self.current.generation if self.current else None

    async def wait_synced(self) -> None:
        """Waits until the reservations have been read once."""
        await self._synced.wait()

    def update(self, version: TelemetryObject) -> None:
        """Stores a version, unless a newer one is known.

        A read and the watch race: an event that was in transit during a read is older than the read's response.
        """
        if self.current is not None and version.resource_version <= self.current.resource_version:
            return
        self._observe(version)
        before, self.current = self.current, version
        self._synced.set()
        if before is None or (before.uid, before.generation) != (version.uid, version.generation):
            log.info("reservations read", generation=version.generation, assignments=len(version.assignments))
            self._changes.notify()

    async def refresh(self) -> None:
        """Reads the object.

        Raises:
            KubeError: No response, or a rejection.
            ObjectFormatError: The response is not a GPUTelemetry.
        """
        try:
            with self._counting_unreadable():
                self.update(await self._api.get())
        except ObjectNotFoundError:
            self._forget()

    async def recreate(self) -> None:
        """Creates the object after it was found missing. A failure is left to the next attempt."""
        with suppress(KubeError, ObjectFormatError):
            await self._ensure()

    async def run(self) -> None:
        """Creates the object if it does not exist and watches it, without end."""
        ensured = False
        while True:
            # One series of attempts per connection, so that the waits are short again after each success.
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type((KubeError, ObjectFormatError)),
                wait=wait_random_exponential(multiplier=0.5, max=MAX_BACKOFF_SECONDS),
                before_sleep=_log_retry,
            ):
                with attempt:
                    await self._read_or_create(set_owner=not ensured)
                    ensured = True
            self.followed = True
            try:
                await self._watch()
            finally:
                self.followed = False

    async def _read_or_create(self, *, set_owner: bool) -> None:
        """Reads the object and creates it if missing; with `set_owner`, also sets its owner."""
        if set_owner:
            await self._ensure()
            return
        await self.refresh()
        if self.current is None:
            await self._ensure()

    async def _watch(self) -> None:
        """Watches until the watch ends, for any reason."""
        try:
            with self._counting_unreadable():
                async with aclosing(self._api.watch()) as versions:
                    async for version in versions:
                        if version is None:
                            # With its Node, or by hand. In the first case `ensure` fails until the Node is back.
                            log.warning("GPUTelemetry object deleted")
                            self._forget()
                            return
                        self.update(version)
        except (KubeError, ObjectFormatError) as error:
            log.warning("watch failed", error=str(error))
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))

    async def _ensure(self) -> None:
        with self._counting_unreadable():
            self.update(await self._api.ensure())

    @contextmanager
    def _counting_unreadable(self) -> Iterator[None]:
        try:
            yield
        except ObjectFormatError:
            self._unreadable()
            raise

    def _forget(self) -> None:
        self._synced.set()
        if self.current is not None:
            self.current = None
            self._changes.notify()


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("cannot watch GPUTelemetry, retrying", error=str(error), attempt=state.attempt_number)
