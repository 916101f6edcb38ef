"""Identifies one device, reads it on its schedule, and records each result."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceLostError,
    DeviceResetRequiredError,
    Hardware,
    Reading,
    SlowReading,
)
from gpufleet_agent.runtime.aligned_ticks import seconds_to_next_tick
from gpufleet_agent.runtime.driver_thread import DriverThread
from gpufleet_agent.sampling.errors import ImplausibleSampleError
from gpufleet_agent.sampling.health import ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.read_schedule import ReadSchedule, ScheduleGroup
from gpufleet_agent.sampling.timing import Timing

T = TypeVar("T", Reading, SlowReading)

log = structlog.get_logger(__name__)


class DeviceSampler:
    """Samples one device until cancelled.

    Attributes:
        uuid: The device; None until it is identified.
        first_read: Set once the first read succeeded, failed or is overdue.
        access_failures: Reads in a row that failed as if the container had lost its device nodes.
        thread: Its own thread. It identifies the device; devices are read by each other's threads, see `read_schedule`,
            but each by one thread at a time.
    """

    def __init__(
        self,
        hardware: Hardware,
        index: int,
        *,
        registry: NodeRegistry,
        timing: Timing,
        clock: Callable[[], Instant],
        peers: ScheduleGroup,
    ) -> None:
        self.uuid: str | None = None
        self.first_read = asyncio.Event()
        self.access_failures = 0
        self.thread = DriverThread(f"gpu-{index}")
        self._hardware = hardware
        self._index = index
        self._registry = registry
        self._timing = timing
        self._clock = clock
        self._peers = peers
        self._calling = threading.Lock()
        self._outcome = ""
        self._impossible: frozenset[str] = frozenset()
        """Values that were impossible in the last slow reading."""
        self._identity = self.thread.submit(lambda: hardware.identify(index))

    @property
    def identified(self) -> bool:
        """True once the device is identified, or has failed to be."""
        return self._identity.done()

    async def identify(self) -> None:
        """Waits until the device is identified, or has failed to be, within the deadline.

        Raises:
            HardwareUnavailableError: The driver is gone.
            ProcessMustRestartError: Only a new process can help.
        """
        await asyncio.wait({self._identity}, timeout=self._timing.deadline)
        if self.identified:
            self._take_identity()
        else:
            log.warning("device not responding", index=self._index, fault=str(ReadFault.UNRESPONSIVE))

    async def run(self, listed: Callable[[], None]) -> None:
        """Reads on schedule; never returns. May be called again after it was cancelled.

        Args:
            listed: Called if the device is identified only now, after `identify` timed out.

        Raises:
            HardwareUnavailableError: The driver is gone.
            ProcessMustRestartError: Only a new process can help.
        """
        if not self.identified:
            self.first_read.set()
            await asyncio.wait({self._identity})
            self._take_identity()
            listed()
        if self.uuid is None:
            self.first_read.set()
            await asyncio.get_running_loop().create_future()  # not listed until the hardware is reopened
        else:
            await self._read_on_schedule(self.uuid)

    def _take_identity(self) -> None:
        try:
            self.uuid = self._identity.result()
        except DeviceError as error:
            log.warning("device not listed", index=self._index, error=str(error))

    async def _read_on_schedule(self, uuid: str) -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            self._read_once(uuid, self._hardware.read, self._keep, schedule)
            if not self.first_read.is_set():
                with suppress(RuntimeError):  # the loop is closed, no task waits
                    loop.call_soon_threadsafe(self.first_read.set)

        def read_slow() -> None:
            keep = partial(self._keep_facts, self._clock().monotonic)
            self._read_once(uuid, self._hardware.read_slow, keep, schedule, slow=True)

        schedule = ReadSchedule(read, read_slow, self._timing, self._peers, self._calling)
        ended = self.thread.submit(schedule.run)
        try:
            await self._watch(uuid, schedule, ended)
        finally:
            schedule.stop()

    async def _watch(self, uuid: str, schedule: ReadSchedule, ended: asyncio.Future[None]) -> None:
        """Reports each overdue call in the device's health, once.

        Raises:
            Exception: What ended the schedule.
        """
        deadline = self._timing.deadline
        reported: float | None = None
        while not ended.done():
            now, since = asyncio.get_running_loop().time(), schedule.in_call_since
            left = seconds_to_next_tick(now, deadline)
            if since is not None and since != reported:
                left = since + deadline - now
                if left <= 0:
                    reported, left = since, deadline
                    message = f"a call takes longer than {deadline:g} s"
                    self._registry.failed(uuid, ReadFault.UNRESPONSIVE, message, self._clock())
                    self._log_once(
                        ReadFault.UNRESPONSIVE, "device not responding", fault=ReadFault.UNRESPONSIVE, error=message
                    )
                    self.first_read.set()
            # A call that begins just after this check is checked once before its deadline, and again at it.
            await asyncio.wait({ended}, timeout=left)
        ended.result()

    def _read_once(
        self,
        uuid: str,
        read: Callable[[str], T],
        keep: Callable[[T], None],
        schedule: ReadSchedule,
        *,
        slow: bool = False,
    ) -> None:
        """Reads and records in the thread of a device. Results after the schedule was stopped are dropped."""
        try:
            reading = read(uuid)
            if not schedule.stopped:
                keep(reading)
        except ImplausibleSampleError as error:
            self._log_once(f"invalid {error.field}", "sample dropped", reason=str(error.reason), error=str(error))
        except DeviceError as error:
            if schedule.stopped:
                return
            fault = fault_of(error)
            if not slow:  # slow readings have nothing that is essential
                self.access_failures = self.access_failures + 1 if isinstance(error, DeviceAccessError) else 0
            self._registry.failed(uuid, fault, error.message, self._clock(), slow=slow)
            self._log_once(fault, "device not responding", fault=str(fault), error=str(error))

    def _keep(self, reading: Reading) -> None:
        self._registry.record(reading, self._clock())
        self.access_failures = 0
        if self._outcome:
            self._outcome = ""
            log.info("device responding again", uuid=self.uuid, index=self._index)

    def _keep_facts(self, begun: float, reading: SlowReading) -> None:
        dropped = {error.field: error for error in self._registry.record_slow(reading, self._clock(), begun)}
        for name, error in dropped.items():
            if name not in self._impossible:
                log.warning(
                    "value dropped",
                    uuid=self.uuid,
                    index=self._index,
                    value=name,
                    reason=error.reason.value,
                    error=str(error),
                )
        self._impossible = frozenset(dropped)

    def _log_once(self, outcome: str, message: str, **details: str) -> None:
        """Logs an outcome unless it repeats the previous one: a device may fail each second for a week."""
        if outcome != self._outcome:
            self._outcome = outcome
            log.warning(message, uuid=self.uuid, index=self._index, **details)


def fault_of(error: DeviceError) -> ReadFault:
    """Returns the fault that an error shows, immediately or when it repeats."""
    match error:
        case DeviceLostError():
            return ReadFault.DEVICE_LOST
        case DeviceResetRequiredError():
            return ReadFault.RESET_REQUIRED
        case _:
            return ReadFault.READ_FAILED
