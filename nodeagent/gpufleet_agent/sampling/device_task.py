"""One device: finding out who it is, reading it on its schedule, and what each outcome means for it."""

import asyncio
from collections.abc import Callable
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
from gpufleet_agent.sampling.errors import InvalidSampleError
from gpufleet_agent.sampling.health import Fault
from gpufleet_agent.sampling.record import Instant, NodeRecord
from gpufleet_agent.sampling.timing import Timing
from gpufleet_agent.sampling.worker import Worker

T = TypeVar("T", Reading, SlowReading)

_log = structlog.get_logger(__name__)


class DeviceTask:
    """Asks what is in one slot, and reads it until cancelled.

    Attributes:
        uuid: The device; None until it has said who it is.
        answered: Set once the first read has ended, well or badly, or is overdue.
        access_failures: Reads in a row that failed as they do when the container has lost its device nodes.
        worker: The one thread in which this device is ever asked.
    """

    def __init__(
        self, hardware: Hardware, slot: int, record: NodeRecord, timing: Timing, clock: Callable[[], Instant]
    ) -> None:
        self.uuid: str | None = None
        self.answered = asyncio.Event()
        self.access_failures = 0
        self.worker = Worker(f"gpu-{slot}")
        self._hardware = hardware
        self._slot = slot
        self._record = record
        self._timing = timing
        self._clock = clock
        self._outcome = ""
        self._identity = self.worker.submit(lambda: hardware.identify(slot))

    @property
    def identified(self) -> bool:
        """True when the device has said who it is, or has refused: asking is over."""
        return self._identity.done()

    async def identify(self) -> None:
        """Wait until asking is over, at most for the deadline.

        Raises:
            HardwareUnavailableError: The driver went away.
            ProcessMustRestartError: Nothing that this process does can help.
        """
        await asyncio.wait({self._identity}, timeout=self._timing.deadline)
        if self.identified:
            self._take_identity()
        else:
            _log.warning("device does not answer", slot=self._slot, fault=str(Fault.UNRESPONSIVE))

    async def run(self, listed: Callable[[], None]) -> None:
        """Read on schedule; never returns. May be run again after it was cancelled.

        Args:
            listed: Called when the device says who it is only now, after `identify` had given up waiting.

        Raises:
            HardwareUnavailableError: The driver went away.
            ProcessMustRestartError: Nothing that this process does can help.
        """
        loop = asyncio.get_running_loop()
        if not self.identified:
            self.answered.set()
            await asyncio.wait({self._identity})
            self._take_identity()
            listed()
        if self.uuid is None:
            self.answered.set()
            await loop.create_future()  # left out until the hardware is opened anew
        due = slow_due = loop.time()
        while True:
            if loop.time() >= slow_due:
                slow_due = loop.time() + self._timing.slow
                await self._once(self._hardware.read_slow, self._keep_facts, slow=True)
            await self._once(self._hardware.read, self._keep)
            self.answered.set()
            due = next_due(due, loop.time(), self._timing.sample)
            await asyncio.sleep(due - loop.time())

    def _take_identity(self) -> None:
        try:
            self.uuid = self._identity.result()
        except DeviceError as error:
            _log.warning("device does not answer and is left out", slot=self._slot, error=str(error))

    async def _once(self, read: Callable[[str], T], keep: Callable[[T], None], *, slow: bool = False) -> None:
        uuid = self.uuid
        assert uuid is not None  # noqa: S101 - `run` has seen to it
        try:
            keep(await self._answer(uuid, lambda: read(uuid)))
        except InvalidSampleError as error:
            self._tell(f"invalid {error.field}", "sample dropped", reason=str(error.reason), error=str(error))
        except DeviceError as error:
            fault = fault_of(error)
            self.access_failures = self.access_failures + 1 if isinstance(error, DeviceAccessError) else 0
            self._record.failed(uuid, fault, error.message, self._clock(), slow=slow)
            self._tell(fault, "device does not answer", fault=str(fault), error=str(error))

    async def _answer(self, uuid: str, call: Callable[[], T]) -> T:
        """The call's result, however long it takes; when overdue, the device's health says so meanwhile."""
        future = self.worker.submit(call)
        deadline = self._timing.deadline
        done, _ = await asyncio.wait({future}, timeout=deadline)
        if not done:
            message = f"a call takes longer than {deadline:g} s"
            self._record.failed(uuid, Fault.UNRESPONSIVE, message, self._clock())
            self._tell(Fault.UNRESPONSIVE, "device does not answer", fault=str(Fault.UNRESPONSIVE), error=message)
            self.answered.set()
            await asyncio.wait({future})
        return future.result()

    def _keep(self, reading: Reading) -> None:
        self._record.record(reading, self._clock())
        self.access_failures = 0
        if self._outcome:
            self._outcome = ""
            _log.info("device answers again", uuid=self.uuid, slot=self._slot)

    def _keep_facts(self, reading: SlowReading) -> None:
        self._record.record_slow(reading, self._clock())

    def _tell(self, outcome: str, message: str, **details: str) -> None:
        """Log an outcome when it isn't the one before: a device may fail each second for a week."""
        if outcome != self._outcome:
            self._outcome = outcome
            _log.warning(message, uuid=self.uuid, slot=self._slot, **details)


def next_due(due: float, now: float, interval: float) -> float:
    """The next time on the grid `due + k * interval` that lies after `now`: missed turns are skipped."""
    if due + interval > now:
        return due + interval
    return now + interval - (now - due) % interval


def fault_of(error: DeviceError) -> Fault:
    """The fault that an error of a device is, at once or after some of them."""
    match error:
        case DeviceLostError():
            return Fault.DEVICE_LOST
        case DeviceResetRequiredError():
            return Fault.RESET_REQUIRED
        case _:
            return Fault.READ_FAILED
