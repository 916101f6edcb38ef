"""Reads every device on its schedule and keeps what is known of them.

One thread per device reads it and records what it says; all else is on the event loop. A call that overruns its
deadline shows in that device's health and delays no other device. The hardware is opened again when the driver went
away, and now and then while a device is lost, since a driver lists a device that was reset only after that.
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
from gpufleet_agent.sampling.driver_session import DriverSession
from gpufleet_agent.sampling.driver_thread import DriverThread
from gpufleet_agent.sampling.errors import SamplerClosedError
from gpufleet_agent.sampling.health import HealthPolicy, ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedState
from gpufleet_agent.sampling.snapshot import NodeSnapshot
from gpufleet_agent.sampling.timing import Timing

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_STOPPING_TURNS = 5
"""How often a session is given the deadline to end before only a new process can open the driver."""


def now() -> Instant:
    """The real clocks."""
    return Instant(monotonic=time.monotonic(), wall=time.time())


class Sampler:
    """The node's devices, sampled. Make it, `start` it, and `close` it, all in one event loop."""

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
        self._record = NodeRegistry(
            window_seconds=timing.window,
            sample_seconds=timing.sample,
            facts_seconds=3 * timing.slow + timing.sample,
            policy=policy,
            on_change=self._on_change,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._opened = asyncio.Event()
        self._failure: asyncio.Future[Exception] | None = None
        self._control: DriverThread | None = None
        self._session: DriverSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the hardware and sample; returns once every device has been read, or failed, once.

        No driver, or none that answers in time, is no error: the view says so, and opening is tried again for as
        long as it takes. Should this raise, or be cancelled, everything is closed again.

        Raises:
            ProcessMustRestartError: Nothing that this process does can help.
            SamplerClosedError: It was closed before.
        """
        if self._closing is not None:
            raise SamplerClosedError("the sampler is closed: it does not start again")
        if self._task is not None:
            raise RuntimeError("the sampler was started before")
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        try:
            self._control = DriverThread("gpu-control")
            self._task = asyncio.create_task(self._supervise(self._failure), name="sampler")
            await self._wait_until_opened(self._failure)
        except BaseException:  # a cancelled start, too, must leave no thread and no open driver behind
            await self.close()
            raise

    async def close(self) -> None:
        """Stop sampling, let calls in flight finish within the deadline, close the hardware. Safe to call twice.

        Cancelling the caller doesn't stop it half way. A call that is stuck for good keeps its thread, and the
        hardware stays open under it: the end of the process frees both.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="sampler-close")
        await asyncio.shield(self._closing)

    def snapshot(self) -> NodeSnapshot:
        """What is known now, from memory: never blocks. Still answers after close."""
        return self._record.snapshot(self._clock())

    def saved_state(self) -> SavedState | None:
        """What a later process may not hear again; None: it isn't known yet what devices there are."""
        return self._record.saved_state(self._clock())

    def restore(self, past: SavedState) -> None:
        """Take over what an earlier process knew of the devices, from each source once, before anybody is told."""
        with suppress(SamplerClosedError):
            self._record.restore(past, self._clock())

    def acknowledge(self, acknowledgement: FaultAcknowledgment) -> None:
        """Forgive what happened to devices before; harmless when repeated."""
        with suppress(SamplerClosedError):
            self._record.acknowledge(acknowledgement, self._clock())

    async def changed(self, seen: int) -> int:
        """Wait until `health_version` differs from `seen`; returns the new one. No change is missed.

        Raises:
            SamplerClosedError: The sampler was closed, before or during the wait.
        """
        while True:
            bell = self._bell
            if self._closing is not None:
                raise SamplerClosedError("the sampler is closed: nothing will change any more")
            if self._record.health_version != seen:
                return self._record.health_version
            await bell.wait()

    async def failed(self) -> Exception:
        """Wait for an error that only a new process can mend (`ProcessMustRestartError`, or a defect).

        Raises:
            RuntimeError: The sampler was never started.
        """
        if self._failure is None:
            raise RuntimeError("the sampler was never started")
        return await asyncio.shield(self._failure)

    async def _wait_until_opened(self, failure: asyncio.Future[Exception]) -> None:
        opened = asyncio.ensure_future(self._first_round())
        try:
            either: set[asyncio.Future[Any]] = {opened, failure}
            await asyncio.wait(either, timeout=self._timing.opening, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                raise failure.result()
            if not opened.done() and not self._opened.is_set():
                message = f"the driver has not answered for {self._timing.opening:g} s"
                _log.warning("hardware unavailable", error=message)
                # Nothing says that it was reloaded, so that coming back is no reset.
                self._record.unavailable(message, self._clock(), ReadFault.UNRESPONSIVE)
        finally:
            opened.cancel()

    async def _first_round(self) -> None:
        await self._opened.wait()
        if self._session is not None:
            await self._session.first_round()

    async def _supervise(self, failure: asyncio.Future[Exception]) -> None:
        try:
            reopen_wait = self._timing.reopen_first
            while True:
                session = await self._open()
                self._opened.set()
                reopen_wait = await self._until_reopening(session, reopen_wait)
                await self._end(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, sampling has ended: main must know and end too
            _log.error("sampling ended", error=str(error), kind=type(error).__name__)
            failure.set_result(error)

    async def _until_reopening(self, session: DriverSession, reopen_wait: float) -> float:
        """Sample until the hardware must be opened anew, or should be and can be; returns the next wait."""
        while True:
            try:
                reopen_wait = await session.run(reopen_wait)
            except HardwareUnavailableError as error:
                _log.warning("hardware unavailable", error=str(error))
                self._tell_record(error)
                return self._timing.reopen_first
            # Should a call have got stuck just now, then the others go on, and so do the same threads: a device
            # must never be asked from a second one.
            if await session.quiet():
                return reopen_wait
            # Long enough for the stuck call to miss its deadline, or it would never be told.
            reopen_wait = max(reopen_wait, 2 * self._timing.deadline)

    async def _open(self) -> DriverSession:
        """Open the hardware, trying for as long as there is no driver."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(HardwareUnavailableError),
            wait=wait_exponential(multiplier=self._timing.retry_first, max=self._timing.retry_max),
            before_sleep=self._tell_unavailable,
        )
        session: DriverSession = await retrying(self._open_once)
        return session

    async def _open_once(self) -> DriverSession:
        hardware = self._hardware

        def open_and_count() -> tuple[str | None, int]:
            hardware.open()
            try:
                return hardware.driver_version(), hardware.device_count()
            except BaseException:  # nobody else knows that it is open
                hardware.close()
                raise

        driver_version, slots = await self._call(open_and_count)
        session = self._session = DriverSession(
            hardware,
            slots=slots,
            driver_version=driver_version,
            record=self._record,
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
        """Close the hardware. Either no call is in flight, or no device works: nobody is kept waiting.

        Raises:
            ProcessMustRestartError: A call never came back, and under it the driver must not be closed.
        """
        for _ in range(_STOPPING_TURNS):
            if await session.stop():
                await self._call(self._hardware.close)
                return
            _log.warning("hardware can't be closed: a call is still in flight")
        raise ProcessMustRestartError("a call that is stuck keeps the driver from being opened anew")

    def _tell_unavailable(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome is not None else None
        if attempt.attempt_number == 1:
            _log.warning("hardware unavailable", error=str(error))
        self._tell_record(error)
        self._opened.set()

    def _tell_record(self, error: BaseException | None) -> None:
        self._record.unavailable(str(error), self._clock(), unloaded=isinstance(error, DriverNotLoadedError))

    async def _call(self, function: Callable[[], T]) -> T:
        assert self._control is not None  # noqa: S101 - set by start
        return await self._control.submit(function)

    async def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._record.close()
        self._ring()
        idle = self._session is None or await self._session.stop()
        if self._control is None:
            return
        if idle:
            # In line behind an `open` that was in flight when its waiter was cancelled.
            self._control.submit(self._hardware.close)
        _, pending = await asyncio.wait({self._control.stop()}, timeout=self._timing.deadline)
        if pending or not idle:
            _log.warning("hardware left open: a call is still in flight")

    def _on_change(self) -> None:
        """Called in whichever thread recorded something."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()
