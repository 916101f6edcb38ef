"""Samples every device on its schedule and holds the results.

There is a thread for each device, and one of them reads all devices while none is stuck; everything else runs on the
event loop. A call that misses its deadline shows in the device's health, and does not delay the reads of other devices.
The hardware is opened again when the driver was unloaded, and periodically while a device is lost: a driver lists a
device that was reset only when it is opened again.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from gpufleet_agent.devices.base import (
    DriverNotLoadedError,
    Hardware,
    HardwareUnavailableError,
    ProcessMustRestartError,
)
from gpufleet_agent.runtime.driver_thread import DriverThread
from gpufleet_agent.sampling.driver_session import DriverSession
from gpufleet_agent.sampling.errors import SamplerClosedError
from gpufleet_agent.sampling.health import HealthPolicy, ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedState
from gpufleet_agent.sampling.snapshot import NodeSnapshot
from gpufleet_agent.sampling.timing import Timing

T = TypeVar("T")

log = structlog.get_logger(__name__)

_MAX_STOP_ATTEMPTS = 5
"""How often a session gets the deadline to stop; after that only a new process can open the driver."""


def now() -> Instant:
    return Instant(monotonic=time.monotonic(), wall=time.time())


class Sampler:
    """Samples the node's devices. Create, `start` and `close` it in the same event loop."""

    def __init__(
        self,
        hardware: Hardware,
        *,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        policy: HealthPolicy = HealthPolicy(),  # noqa: B008 - frozen
        clock: Callable[[], Instant] = now,
    ) -> None:
        self._hardware = hardware
        self._timing = timing
        self._clock = clock
        self._registry = NodeRegistry(
            window_seconds=timing.window,
            sample_seconds=timing.sample,
            facts_seconds=3 * timing.slow + timing.sample,
            policy=policy,
            on_change=self._on_change,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._opened = asyncio.Event()
        self._failure: asyncio.Future[Exception] | None = None
        self._control: DriverThread | None = None
        self._session: DriverSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Opens the hardware and samples; returns once every device was read, or failed, once.

        A missing driver, or one that does not answer in time, is not an error: the snapshot reports it, and opening is
        retried until it succeeds. If this raises or is cancelled, everything is closed again.

        Raises:
            ProcessMustRestartError: Only a new process can help.
            SamplerClosedError: It was closed before.
        """
        if self._closing is not None:
            raise SamplerClosedError("the sampler is closed and cannot be started again")
        if self._task is not None:
            raise RuntimeError("the sampler is already started")
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        try:
            self._control = DriverThread("gpu-control")
            self._task = asyncio.create_task(self._supervise(self._failure), name="sampler")
            await self._wait_until_opened(self._failure)
        except BaseException:  # a cancelled start must not leave a thread or an open driver behind either
            await self.close()
            raise

    async def close(self) -> None:
        """Stops sampling, waits for calls in flight up to the deadline, and closes the hardware. Safe to call twice.

        It completes even if the caller is cancelled. A call that never returns keeps its thread, and the hardware stays
        open under it until the process ends.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="sampler-close")
        await asyncio.shield(self._closing)

    def snapshot(self) -> NodeSnapshot:
        """Returns what is known now, without I/O. Never blocks; works after `close`."""
        return self._registry.snapshot(self._clock())

    def saved_state(self) -> SavedState | None:
        """Returns the faults that the hardware may not report again; None if the devices are not known yet."""
        return self._registry.saved_state(self._clock())

    def restore(self, past: SavedState) -> None:
        """Restores the faults that an earlier process saved. Call it once per source."""
        with suppress(SamplerClosedError):
            self._registry.restore(past, self._clock())

    def acknowledge(self, acknowledgment: FaultAcknowledgment) -> None:
        """Clears faults that an administrator acknowledged. Repeating it has no effect."""
        with suppress(SamplerClosedError):
            self._registry.acknowledge(acknowledgment, self._clock())

    async def changed(self, seen: int) -> int:
        """Waits until `health_version` differs from `seen`; returns the new one. No change is missed.

        Raises:
            SamplerClosedError: The sampler was closed, before or during the wait.
        """
        while True:
            changed = self._changed
            if self._closing is not None:
                raise SamplerClosedError("the sampler is closed")
            if self._registry.health_version != seen:
                return self._registry.health_version
            await changed.wait()

    async def failed(self) -> Exception:
        """Waits for an error that only a new process can recover from: `ProcessMustRestartError`, or a bug.

        Raises:
            RuntimeError: The sampler was never started.
        """
        if self._failure is None:
            raise RuntimeError("the sampler was never started")
        return await asyncio.shield(self._failure)

    async def _wait_until_opened(self, failure: asyncio.Future[Exception]) -> None:
        opened = asyncio.ensure_future(self._first_reads())
        try:
            either: set[asyncio.Future[Any]] = {opened, failure}
            await asyncio.wait(either, timeout=self._timing.opening, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                raise failure.result()
            if not opened.done() and not self._opened.is_set():
                message = f"the driver has not responded for {self._timing.opening:g} s"
                log.warning("hardware unavailable", error=message)
                # A timeout does not prove a driver reload, so recovery must not clear faults that need a reset.
                self._registry.unavailable(message, self._clock(), ReadFault.UNRESPONSIVE)
        finally:
            opened.cancel()

    async def _first_reads(self) -> None:
        await self._opened.wait()
        if self._session is not None:
            await self._session.first_reads()

    async def _supervise(self, failure: asyncio.Future[Exception]) -> None:
        try:
            reopen_wait = self._timing.reopen_first
            while True:
                session = await self._open()
                self._opened.set()
                reopen_wait = await self._until_reopening(session, reopen_wait)
                await self._end(session)
        except Exception as error:  # noqa: BLE001 - sampling has ended for any reason: the process must end as well
            log.error("sampling ended", error=str(error), kind=type(error).__name__)  # noqa: TRY400 - the process logs the traceback
            failure.set_result(error)

    async def _until_reopening(self, session: DriverSession, reopen_wait: float) -> float:
        """Samples until the hardware must be reopened, or should be and can be; returns the next wait."""
        while True:
            try:
                reopen_wait = await session.run(reopen_wait)
            except HardwareUnavailableError as error:
                log.warning("hardware unavailable", error=str(error))
                self._mark_unavailable(error)
                return self._timing.reopen_first
            # If a call got stuck just now, the other devices continue, in the same threads: a device must never be
            # called from a second thread.
            if await session.drain():
                return reopen_wait
            # Long enough for the stuck call to miss its deadline; otherwise it would never be reported.
            reopen_wait = max(reopen_wait, 2 * self._timing.deadline)

    async def _open(self) -> DriverSession:
        """Opens the hardware; retries while there is no driver."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(HardwareUnavailableError),
            wait=wait_exponential(multiplier=self._timing.retry_first, max=self._timing.retry_max),
            before_sleep=self._report_unavailable,
        )
        session: DriverSession = await retrying(self._open_once)
        return session

    async def _open_once(self) -> DriverSession:
        hardware = self._hardware

        def open_and_count() -> tuple[str | None, int]:
            hardware.open()
            try:
                return hardware.driver_version(), hardware.device_count()
            except BaseException:  # no other code knows that it is open
                hardware.close()
                raise

        driver_version, device_count = await self._call(open_and_count)
        session = self._session = DriverSession(
            hardware,
            device_count=device_count,
            driver_version=driver_version,
            registry=self._registry,
            timing=self._timing,
            clock=self._clock,
        )
        try:
            await session.identify()
        except HardwareUnavailableError:
            await self._end(session)
            raise
        return session

    async def _end(self, session: DriverSession) -> None:
        """Closes the hardware. No device is delayed: either no call is in flight, or none works.

        Raises:
            ProcessMustRestartError: A call never returned, and the driver must not be closed under it.
        """
        for _ in range(_MAX_STOP_ATTEMPTS):
            if await session.stop():
                await self._call(self._hardware.close)
                return
            log.warning("hardware not closed, call in flight")
        raise ProcessMustRestartError("a stuck call prevents the driver from being reopened")

    def _report_unavailable(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome is not None else None
        if attempt.attempt_number == 1:
            log.warning("hardware unavailable", error=str(error))
        self._mark_unavailable(error)
        self._opened.set()

    def _mark_unavailable(self, error: BaseException | None) -> None:
        self._registry.unavailable(str(error), self._clock(), unloaded=isinstance(error, DriverNotLoadedError))

    async def _call(self, function: Callable[[], T]) -> T:
        assert self._control is not None  # noqa: S101 - set by start
        return await self._control.submit(function)

    async def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._registry.close()
        self._wake()
        idle = self._session is None or await self._session.stop()
        if self._control is None:
            return
        if idle:
            # Queued behind an `open` that was in flight when its waiter was cancelled.
            self._control.submit(self._hardware.close)
        _, pending = await asyncio.wait({self._control.stop()}, timeout=self._timing.deadline)
        if pending or not idle:
            log.warning("hardware left open, call in flight")

    def _on_change(self) -> None:
        """Called in the thread that recorded the change."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, no task waits
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
