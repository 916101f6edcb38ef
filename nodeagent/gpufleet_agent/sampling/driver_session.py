"""One opening of the hardware: all devices and events, until the driver goes away or should be opened anew."""

import asyncio
import threading
from collections.abc import Callable

import structlog

from gpufleet_agent.devices.base import (
    AccessLostError,
    DeviceError,
    DeviceEvent,
    DeviceInfo,
    EventSource,
    Hardware,
    UnknownDeviceError,
)
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.sampling.device_sampler import DeviceSampler
from gpufleet_agent.sampling.driver_thread import DriverThread
from gpufleet_agent.sampling.errors import SamplerClosedError
from gpufleet_agent.sampling.health import ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.reopen_timer import ReopenTimer
from gpufleet_agent.sampling.timing import Timing

_log = structlog.get_logger(__name__)

_GONE = frozenset({ReadFault.DEVICE_LOST, ReadFault.RESET_REQUIRED})
_MOMENT = 1.0
"""How long the other devices are kept waiting, in seconds, when a call turns out to be stuck."""
_ACCESS_FAILURES = 5
"""So many failures in a row of every device at once mean that the container has lost its device nodes."""

_MAX_WAITING = 64
"""Events that are taken from the driver's queue before it is closed, so that a torrent doesn't keep it open."""


class DriverSession:
    """Finds out what is in each slot, and samples it."""

    def __init__(
        self,
        hardware: Hardware,
        *,
        slots: int,
        driver_version: str | None,
        record: NodeRegistry,
        timing: Timing,
        clock: Callable[[], Instant],
    ) -> None:
        """Threads start and ask; nothing is recorded yet.

        Args:
            hardware: Open.
            slots: How many devices it counts.
            driver_version: Its driver's version.
            record: Where everything goes.
            timing: How often, and how long.
            clock: The time.
        """
        self._hardware = hardware
        self._record = record
        self._timing = timing
        self._clock = clock
        self._driver_version = driver_version
        self._listed: tuple[DeviceInfo, ...] = ()
        self._devices = [
            DeviceSampler(hardware, slot, record=record, timing=timing, clock=clock) for slot in range(slots)
        ]
        self._event_worker = DriverThread("gpu-events") if isinstance(hardware, EventSource) and slots else None
        self._workers: list[DriverThread] = [device.worker for device in self._devices]
        if self._event_worker is not None:
            self._workers.append(self._event_worker)

    async def identify(self) -> None:
        """Ask every device who it is, and register those that say so within the deadline.

        Raises:
            HardwareUnavailableError: The driver went away.
            ProcessMustRestartError: Nothing that this process does can help.
        """
        outcomes = await asyncio.gather(*(device.identify() for device in self._devices), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        self._register()

    async def run(self, reopen_wait: float) -> float:
        """Sample; returns when the hardware should be opened anew. May be run again when that proved impossible.

        Args:
            reopen_wait: After how many seconds with a lost device that is.

        Returns:
            How long to wait the next time, should the device still be lost by then.

        Raises:
            HardwareUnavailableError: The driver went away.
            ProcessMustRestartError: Nothing that this process does can help.
        """
        watch = asyncio.ensure_future(self._watch(reopen_wait))
        tasks: list[asyncio.Future[None] | asyncio.Future[float]] = [watch]
        tasks += [asyncio.ensure_future(guard) for guard in (self._guard_access(), self._guard_list())]
        tasks += [asyncio.ensure_future(device.run(self._register)) for device in self._devices]
        if self._event_worker is not None:
            tasks.append(asyncio.ensure_future(self._listen(self._event_worker)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for device in self._devices:
                device.answered.set()  # nobody should wait for a read that will not come
        for task in tasks:
            if task is not watch and not task.cancelled():
                await task  # raises
        return await watch

    async def first_round(self) -> None:
        """Wait until every device has answered, failed or missed the deadline once."""
        for device in self._devices:
            await device.answered.wait()

    async def quiet(self) -> bool:
        """Wait a moment for calls in flight. True: there are none, and none begins but by `run`."""
        moment = min(_MOMENT, self._timing.deadline) + self._timing.event_wait
        calls = [device.worker.submit(_nothing) for device in self._devices]
        if self._event_worker is not None:
            # What waits to be told would be gone with the driver's event queue.
            calls.append(self._event_worker.submit(self._drain))
        return await _done(calls, moment)

    async def stop(self) -> bool:
        """End the threads, waiting at most for the deadline. True: no call is in flight. Nothing runs after that."""
        patience = self._timing.deadline + self._timing.event_wait
        return await _done([worker.stop() for worker in self._workers], patience)

    def _register(self) -> None:
        listed = self._listed = self._hardware.devices()
        unlisted = len(self._devices) - len(listed)
        self._record.register(listed, self._driver_version, self._clock(), unlisted=unlisted)
        _log.info("devices listed", driver=self._driver_version, devices=len(listed), unlisted=unlisted)

    async def _listen(self, worker: DriverThread) -> None:
        stopped = threading.Event()

        def listen() -> None:
            while not stopped.is_set():
                self._take_event(self._timing.event_wait)

        try:
            while True:
                listening = worker.submit(listen)
                await asyncio.wait({listening})  # being cancelled here leaves the call, and what it brings, alone
                try:
                    listening.result()
                except DeviceError as error:
                    # The device's own reads say the same in its health; here it must not become a busy loop.
                    _log.debug("waiting for events failed", error=str(error))
                    await asyncio.sleep(self._timing.event_wait)
        finally:
            stopped.set()

    def _drain(self) -> None:
        """Take what is waiting already."""
        for _ in range(_MAX_WAITING):
            if not self._take_event(0.0):
                return

    def _take_event(self, seconds: float) -> bool:
        """Wait for an event in the worker, and record it there and then. False: none came.

        A driver tells an event once. One that comes when nobody waits for the outcome any more, as while the driver is
        being opened anew, must count all the same.
        """
        hardware = self._hardware
        assert isinstance(hardware, EventSource)  # noqa: S101 - there is a worker only then
        event = hardware.wait_event(seconds)
        if event is not None:
            self._keep_event(event)
        return event is not None

    def _keep_event(self, event: DeviceEvent) -> None:
        level = _log.error if event.fault else _log.info
        level("device event", uuid=event.uuid, kind=event.kind, code=event.code, message=event.message)
        try:
            self._record.event(event, self._clock())
        except UnknownDeviceError as error:
            _log.warning("event of a device that is not registered", error=str(error))
        except SamplerClosedError:
            _log.warning("an event came after the end", uuid=event.uuid)

    async def _watch(self, wait: float) -> float:
        """Return when a device is gone for long, or was left out of the list, and no call is stuck."""
        loop = asyncio.get_running_loop()
        absence = ReopenTimer(wait, self._timing.reopen_first, loop.time())
        while True:
            await asyncio.sleep(min(self._timing.reopen_first, self._timing.slow))
            faults = self._record.faults()
            over = absence.is_over(loop.time(), gone=bool(faults & _GONE) or self._record.unlisted > 0)
            if over and ReadFault.UNRESPONSIVE not in faults and all(device.identified for device in self._devices):
                # A driver must not be shut down under a call in flight, so a stuck one puts this off.
                return min(absence.wait * 2, self._timing.reopen_max)

    async def _guard_access(self) -> None:
        while True:
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), self._timing.sample))
            failures = [device.access_failures for device in self._devices if device.uuid is not None]
            if failures and min(failures) >= _ACCESS_FAILURES:
                raise AccessLostError("every device fails as they do when the container has lost its device nodes")

    async def _guard_list(self) -> None:
        """Register anew when the devices say something else of themselves than before, such as other peers."""
        while True:
            await asyncio.sleep(self._timing.slow)
            if self._hardware.devices() != self._listed:
                self._register()


async def _done(futures: list[asyncio.Future[None]], timeout: float) -> bool:  # noqa: ASYNC109 - it answers False
    if not futures:
        return True
    _, pending = await asyncio.wait(futures, timeout=timeout)
    return not pending


def _nothing() -> None:
    """Comes back when all that was submitted before it has."""
