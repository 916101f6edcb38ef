"""One device: reading it on its schedule, and what each outcome means for it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

from gpufleet_agent.devices.base import (
    DeviceAccessError,
    DeviceError,
    DeviceInfo,
    DeviceLostError,
    DeviceResetRequiredError,
    Hardware,
    Reading,
    SlowReading,
)
from gpufleet_agent.sampling.errors import InvalidSampleError
from gpufleet_agent.sampling.health import Fault
from gpufleet_agent.sampling.record import Instant, NodeRecord
from gpufleet_agent.sampling.timing import Timing
from gpufleet_agent.sampling.worker import Worker

T = TypeVar("T", Reading, SlowReading)

_log = structlog.get_logger(__name__)


class DeviceTask:
    """Reads one device until cancelled.

    Attributes:
        info: The device.
        answered: Set once the first read has ended, well or badly, or is overdue.
        access_failures: Reads in a row that failed as they do when the container has lost its device nodes.
    """

    def __init__(
        self, hardware: Hardware, info: DeviceInfo, record: NodeRecord, timing: Timing, clock: Callable[[], Instant]
    ) -> None:
        self.info = info
        self.answered = asyncio.Event()
        self.access_failures = 0
        self._hardware = hardware
        self._record = record
        self._timing = timing
        self._clock = clock
        self._worker = Worker(f"gpu-{info.index}")
        self._outcome = ""

    async def run(self) -> None:
        """Read on schedule; never returns.

        Raises:
            HardwareUnavailableError: The driver went away.
            ProcessMustRestartError: Nothing that this process does can help.
        """
        loop = asyncio.get_running_loop()
        due = slow_due = loop.time()
        while True:
            if loop.time() >= slow_due:
                slow_due = loop.time() + self._timing.slow
                await self._once(self._hardware.read_slow, self._record.record_slow)
            await self._once(self._hardware.read, self._keep)
            self.answered.set()
            due = next_due(due, loop.time(), self._timing.sample)
            await asyncio.sleep(due - loop.time())

    def stop(self) -> asyncio.Future[None]:
        """Done when no call is in flight any more."""
        return self._worker.stop()

    async def _once(self, read: Callable[[str], T], keep: Callable[[T], None]) -> None:
        uuid = self.info.uuid
        try:
            keep(await self._answer(lambda: read(uuid)))
        except InvalidSampleError as error:
            self._tell(f"invalid {error.field}", "sample dropped", reason=str(error.reason), error=str(error))
        except DeviceError as error:
            fault = _fault_of(error)
            self.access_failures = self.access_failures + 1 if isinstance(error, DeviceAccessError) else 0
            self._record.failed(uuid, fault, error.message, self._clock())
            self._tell(fault, "device does not answer", fault=str(fault), error=str(error))

    async def _answer(self, call: Callable[[], T]) -> T:
        """The call's result, however long it takes; when overdue, the device's health says so meanwhile."""
        future = self._worker.submit(call)
        deadline = self._timing.deadline
        done, _ = await asyncio.wait({future}, timeout=deadline)
        if not done:
            message = f"a call takes longer than {deadline:g} s"
            self._record.failed(self.info.uuid, Fault.UNRESPONSIVE, message, self._clock())
            self._tell(Fault.UNRESPONSIVE, "device does not answer", fault=str(Fault.UNRESPONSIVE), error=message)
            self.answered.set()
            await asyncio.wait({future})
        return future.result()

    def _keep(self, reading: Reading) -> None:
        self._record.record(reading, self._clock())
        self.access_failures = 0
        if self._outcome:
            self._outcome = ""
            _log.info("device answers again", uuid=self.info.uuid, index=self.info.index)

    def _tell(self, outcome: str, message: str, **details: str) -> None:
        """Log an outcome when it isn't the one before: a device may fail each second for a week."""
        if outcome != self._outcome:
            self._outcome = outcome
            _log.warning(message, uuid=self.info.uuid, index=self.info.index, **details)


def next_due(due: float, now: float, interval: float) -> float:
    """The next time on the grid `due + k * interval` that lies after `now`: missed turns are skipped."""
    if due + interval > now:
        return due + interval
    return now + interval - (now - due) % interval


def _fault_of(error: DeviceError) -> Fault:
    match error:
        case DeviceLostError():
            return Fault.DEVICE_LOST
        case DeviceResetRequiredError():
            return Fault.RESET_REQUIRED
        case _:
            return Fault.READ_FAILED
