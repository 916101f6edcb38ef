"""One device: finding out who it is, reading it on its schedule, and what each outcome means for it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
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
from gpufleet_agent.sampling.driver_thread import DriverThread
from gpufleet_agent.sampling.errors import InvalidSampleError
from gpufleet_agent.sampling.health import ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.read_schedule import ReadSchedule
from gpufleet_agent.sampling.timing import Timing

T = TypeVar("T", Reading, SlowReading)

_log = structlog.get_logger(__name__)


class DeviceSampler:
    """Asks what is in one slot, and reads it until cancelled.

    Attributes:
        uuid: The device; None until it has said who it is.
        answered: Set once the first read has ended, well or badly, or is overdue.
        access_failures: Reads in a row that failed as they do when the container has lost its device nodes.
        worker: The one thread in which this device is ever asked.
    """

    def __init__(
        self,
        hardware: Hardware,
        slot: int,
        *,
        record: NodeRegistry,
        timing: Timing,
        clock: Callable[[], Instant],
    ) -> None:
        self.uuid: str | None = None
        self.answered = asyncio.Event()
        self.access_failures = 0
        self.worker = DriverThread(f"gpu-{slot}")
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
            _log.warning("device does not answer", slot=self._slot, fault=str(ReadFault.UNRESPONSIVE))

    async def run(self, listed: Callable[[], None]) -> None:
        """Read on schedule; never returns. May be run again after it was cancelled.

        Args:
            listed: Called when the device says who it is only now, after `identify` had given up waiting.

        Raises:
            HardwareUnavailableError: The driver went away.
            ProcessMustRestartError: Nothing that this process does can help.
        """
        if not self.identified:
            self.answered.set()
            await asyncio.wait({self._identity})
            self._take_identity()
            listed()
        if self.uuid is None:
            self.answered.set()
            await asyncio.get_running_loop().create_future()  # left out until the hardware is opened anew
        else:
            await self._read_on_schedule(self.uuid)

    def _take_identity(self) -> None:
        try:
            self.uuid = self._identity.result()
        except DeviceError as error:
            _log.warning("device does not answer and is left out", slot=self._slot, error=str(error))

    async def _read_on_schedule(self, uuid: str) -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            self._once(uuid, self._hardware.read, self._keep, rounds)
            if not self.answered.is_set():
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self.answered.set)

        def read_slow() -> None:
            self._once(uuid, self._hardware.read_slow, self._keep_facts, rounds, slow=True)

        rounds = ReadSchedule(read, read_slow, self._timing)
        ended = self.worker.submit(rounds.run)
        try:
            await self._watch(uuid, rounds, ended)
        finally:
            rounds.stop()

    async def _watch(self, uuid: str, rounds: ReadSchedule, ended: asyncio.Future[None]) -> None:
        """See that calls come back. One that is overdue shows in the device's health, however long it takes.

        Raises:
            Exception: What ended the rounds.
        """
        deadline = self._timing.deadline
        told: float | None = None
        while not ended.done():
            since = rounds.in_call_since
            left = deadline
            if since is not None and since != told:
                left = since + deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    told, left = since, deadline
                    message = f"a call takes longer than {deadline:g} s"
                    self._record.failed(uuid, ReadFault.UNRESPONSIVE, message, self._clock())
                    self._tell(
                        ReadFault.UNRESPONSIVE, "device does not answer", fault=ReadFault.UNRESPONSIVE, error=message
                    )
                    self.answered.set()
            # A call that begins just after this look is looked at again before its time, and then when it is up.
            await asyncio.wait({ended}, timeout=left)
        ended.result()

    def _once(
        self,
        uuid: str,
        read: Callable[[str], T],
        keep: Callable[[T], None],
        rounds: ReadSchedule,
        *,
        slow: bool = False,
    ) -> None:
        """Read, and keep what comes, in the device's thread. What comes after the rounds were stopped is dropped."""
        try:
            answer = read(uuid)
            if not rounds.stopped:
                keep(answer)
        except InvalidSampleError as error:
            self._tell(f"invalid {error.field}", "sample dropped", reason=str(error.reason), error=str(error))
        except DeviceError as error:
            if rounds.stopped:
                return
            fault = fault_of(error)
            self.access_failures = self.access_failures + 1 if isinstance(error, DeviceAccessError) else 0
            self._record.failed(uuid, fault, error.message, self._clock(), slow=slow)
            self._tell(fault, "device does not answer", fault=str(fault), error=str(error))

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


def fault_of(error: DeviceError) -> ReadFault:
    """The fault that an error of a device is, at once or after some of them."""
    match error:
        case DeviceLostError():
            return ReadFault.DEVICE_LOST
        case DeviceResetRequiredError():
            return ReadFault.RESET_REQUIRED
        case _:
            return ReadFault.READ_FAILED
