"""One opening of the hardware: reads devices and events until the driver is gone or should be reopened."""

import asyncio
import threading
from collections.abc import Callable

import structlog

from gpufleet_agent.devices.base import (
    AccessLostError,
    DeviceError,
    DeviceEvent,
    DeviceInfo,
    DeviceNodeUser,
    EventSource,
    Hardware,
    UnknownDeviceError,
)
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.driver_thread import DriverThread
from gpufleet_agent.sampling.device_sampler import DeviceSampler
from gpufleet_agent.sampling.errors import SamplerClosedError
from gpufleet_agent.sampling.health import ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.read_schedule import ScheduleGroup
from gpufleet_agent.sampling.reopen_timer import ReopenTimer
from gpufleet_agent.sampling.timing import Timing

log = structlog.get_logger(__name__)

_GONE = frozenset({ReadFault.DEVICE_LOST, ReadFault.RESET_REQUIRED})
_DRAIN_SECONDS = 1.0
"""How long sampling pauses when a call turns out to be stuck."""
_MAX_ACCESS_FAILURES = 5
"""This many failures in a row of every device may mean that the container lost its device nodes."""
_MAX_DRAINED_EVENTS = 64
"""Events read from the driver's queue before it is closed, so that a flood of events does not keep it open."""


class DriverSession:
    """Identifies each device, and samples it."""

    def __init__(
        self,
        hardware: Hardware,
        *,
        device_count: int,
        driver_version: str | None,
        registry: NodeRegistry,
        timing: Timing,
        clock: Callable[[], Instant],
    ) -> None:
        """Starts a thread per device, which identifies it. Nothing is recorded yet.

        Args:
            hardware: Open.
            device_count: Number of devices.
            driver_version: Version of its driver.
            registry: Receives readings, failures and events.
            timing: Intervals and deadlines.
            clock: Returns the time.
        """
        self._hardware = hardware
        self._registry = registry
        self._timing = timing
        self._clock = clock
        self._driver_version = driver_version
        self._listed: tuple[DeviceInfo, ...] = ()
        self._event_wait_failed = False
        self._group = ScheduleGroup(watched=True)
        self._devices = [
            DeviceSampler(hardware, index, registry=registry, timing=timing, clock=clock, peers=self._group)
            for index in range(device_count)
        ]
        self._event_thread = DriverThread("gpu-events") if isinstance(hardware, EventSource) and device_count else None
        self._threads: list[DriverThread] = [device.thread for device in self._devices]
        if self._event_thread is not None:
            self._threads.append(self._event_thread)

    async def identify(self) -> None:
        """Identifies every device, and registers those that answer within the deadline.

        Raises:
            HardwareUnavailableError: The driver is gone.
            ProcessMustRestartError: Only a new process can help.
        """
        outcomes = await asyncio.gather(*(device.identify() for device in self._devices), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        self._register()

    async def run(self, reopen_wait: float) -> float:
        """Samples; returns when the hardware should be reopened. May be called again if that proved impossible.

        Args:
            reopen_wait: Seconds that a device must be lost before that.

        Returns:
            Seconds to wait the next time, if the device is still lost.

        Raises:
            HardwareUnavailableError: The driver is gone.
            ProcessMustRestartError: Only a new process can help.
        """
        watch = asyncio.ensure_future(self._watch(reopen_wait))
        tasks: list[asyncio.Future[None] | asyncio.Future[float]] = [watch]
        tasks += [asyncio.ensure_future(guard) for guard in (self._check_reads(), self._check_list())]
        tasks += [asyncio.ensure_future(device.run(self._register)) for device in self._devices]
        if self._event_thread is not None:
            tasks.append(asyncio.ensure_future(self._listen(self._event_thread)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for device in self._devices:
                device.first_read.set()  # no further read follows
        for task in tasks:
            if task is not watch and not task.cancelled():
                await task  # raises
        return await watch

    async def first_reads(self) -> None:
        """Waits until every device answered, failed or missed the deadline once."""
        for device in self._devices:
            await device.first_read.wait()

    async def drain(self) -> bool:
        """Waits shortly for calls in flight. True: there are none left, and only `run` begins new ones."""
        timeout = min(_DRAIN_SECONDS, self._timing.deadline) + self._timing.event_wait
        calls = [device.thread.submit(_nothing) for device in self._devices]
        if self._event_thread is not None:
            # Events that were not read yet would be lost with the driver's event queue.
            calls.append(self._event_thread.submit(self._drain_events))
        return await _done(calls, timeout)

    async def stop(self) -> bool:
        """Ends the threads, within the deadline. True: no call is in flight, and none will run."""
        timeout = self._timing.deadline + self._timing.event_wait
        return await _done([thread.stop() for thread in self._threads], timeout)

    def _register(self) -> None:
        listed = self._listed = self._hardware.devices()
        unlisted = len(self._devices) - len(listed)
        self._registry.register(listed, self._driver_version, self._clock(), unlisted=unlisted)
        log.info("devices listed", driver=self._driver_version, devices=len(listed), unlisted=unlisted)

    async def _listen(self, thread: DriverThread) -> None:
        stopped = threading.Event()

        def listen() -> None:
            while not stopped.is_set():
                self._take_event(self._timing.event_wait)

        try:
            while True:
                listening = thread.submit(listen)
                await asyncio.wait({listening})  # a cancellation here leaves the call and its result alone
                try:
                    listening.result()
                except DeviceError as error:
                    # Events are missed meanwhile, and no reading shows that. This must not become a busy loop.
                    level = log.debug if self._event_wait_failed else log.warning
                    level("event wait failed", error=str(error))
                    self._event_wait_failed = True
                    await asyncio.sleep(self._timing.event_wait)
        finally:
            stopped.set()

    def _drain_events(self) -> None:
        """Reads the events that are queued already."""
        for _ in range(_MAX_DRAINED_EVENTS):
            if not self._take_event(0.0):
                return

    def _take_event(self, seconds: float) -> bool:
        """Waits for an event and records it in the same thread. False: none came.

        A driver reports an event once. One that comes while no task waits for the result, as during a reopening, must
        be recorded all the same.
        """
        hardware = self._hardware
        assert isinstance(hardware, EventSource)  # noqa: S101 - there is an event thread only then
        event = hardware.wait_event(seconds)
        if self._event_wait_failed:
            self._event_wait_failed = False
            log.info("event wait works again")
        if event is not None:
            self._record_event(event)
        return event is not None

    def _record_event(self, event: DeviceEvent) -> None:
        level = log.error if event.fault else log.info
        level("device event", uuid=event.uuid, kind=event.kind, code=event.code, message=event.message)
        try:
            self._registry.event(event, self._clock())
        except UnknownDeviceError as error:
            log.warning("ignoring event of unregistered device", error=str(error))
        except SamplerClosedError:
            log.warning("ignoring event after shutdown", uuid=event.uuid)

    async def _watch(self, wait: float) -> float:
        """Returns when a device was lost or unlisted for long enough, and no call is stuck."""
        loop = asyncio.get_running_loop()
        timer = ReopenTimer(wait, self._timing.reopen_first, loop.time())
        while True:
            await asyncio.sleep(seconds_to_next_tick(loop.time(), min(self._timing.reopen_first, self._timing.slow)))
            faults = self._registry.faults()
            due = timer.is_due(loop.time(), missing=bool(faults & _GONE) or self._registry.unlisted > 0)
            if due and ReadFault.UNRESPONSIVE not in faults and all(device.identified for device in self._devices):
                # A driver must not be shut down under a call in flight, so a stuck call delays this.
                return min(timer.wait * 2, self._timing.reopen_max)

    async def _check_reads(self) -> None:
        """Checks once in each interval, a little after its reads began, whether devices are late or not accessible."""
        while True:
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), self._timing.sample))
            self._group.wake_if_late()
            failures = [device.access_failures for device in self._devices if device.uuid is not None]
            if failures and min(failures) >= _MAX_ACCESS_FAILURES:
                nodes = self._hardware.lost_nodes() if isinstance(self._hardware, DeviceNodeUser) else None
                if nodes is None:
                    raise AccessLostError("every device fails as if the container had lost its device nodes")
                if nodes:
                    raise AccessLostError(f"the container has lost its device nodes: {', '.join(nodes)}")

    async def _check_list(self) -> None:
        """Registers the devices again when their descriptions changed, such as their peers."""
        while True:
            await asyncio.sleep(seconds_to_next_tick(asyncio.get_running_loop().time(), self._timing.slow))
            if self._hardware.devices() != self._listed:
                self._register()


async def _done(futures: list[asyncio.Future[None]], timeout: float) -> bool:  # noqa: ASYNC109 - it returns False
    if not futures:
        return True
    _, pending = await asyncio.wait(futures, timeout=timeout)
    return not pending


def _nothing() -> None:
    """Completes after everything submitted before it."""
