"""Hardware whose every answer the test decides, and waiting for what it causes."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypedDict

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, Reading, SlowReading, ThrottleReason
from gpufleet_agent.sampling.timing import Timing

FAST = Timing(
    sample=0.005,
    slow=0.02,
    window=60,
    deadline=20,
    event_wait=0.02,
    opening=20,
    retry_first=0.01,
    retry_max=0.02,
    reopen_first=0.05,
    reopen_max=0.2,
)
"""A life in milliseconds; deadlines that only matter when something is wrong leave room for a busy machine."""

IMPATIENT = replace(FAST, deadline=0.3)
"""As `FAST`, for tests in which a call misses its deadline."""


class SampleFields(TypedDict, total=False):
    """What a test states of a sample."""

    memory_total_mib: int | None
    memory_used_mib: int | None
    memory_reserved_mib: int | None
    utilization_percent: int | None
    memory_utilization_percent: int | None
    temperature_celsius: int | None
    memory_temperature_celsius: int | None
    power_milliwatts: int | None
    power_limit_milliwatts: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    throttle_reasons: frozenset[ThrottleReason] | None
    process_count: int | None
    encoder_percent: int | None
    decoder_percent: int | None
    energy_millijoules: int | None
    pcie_replays: int | None
    ecc_corrected: int | None
    ecc_uncorrected: int | None
    remapped_correctable: int | None
    remapped_uncorrectable: int | None
    row_remap_pending: bool | None
    row_remap_failed: bool | None
    page_retirement_pending: bool | None
    mig_enabled: bool | None
    requested_power_limit_milliwatts: int | None


class FakeHardware:
    """`count` devices that answer at once. Put an exception into `failures` to have a device raise it, and a
    `threading.Event` into `stuck` to have its calls wait for it. `opening` is raised by the next opens, in order.
    """

    def __init__(self, count: int = 3) -> None:
        self.listed = [DeviceInfo(f"GPU-{index}", index, "Fake") for index in range(count)]
        self.opening: list[Exception | None] = []
        self.counting: list[Exception] = []
        self.failures: dict[str, Exception] = {}
        self.stuck: dict[str, threading.Event] = {}
        self.answers: dict[str, Reading] = {}
        self.is_open = False
        self.opened = 0
        self.closed = 0
        self.reads = 0
        self.in_flight = 0
        self.open_gate: threading.Event | None = None
        self.closed_under_a_call = False
        self.blocked: set[str] = set()
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def open(self) -> None:
        if self.open_gate is not None:
            self.open_gate.wait(30)
        error = self.opening.pop(0) if self.opening else None
        if error is not None:
            raise error
        self.is_open = True
        self.opened += 1

    def close(self) -> None:
        self.closed_under_a_call = self.closed_under_a_call or self.in_flight > 0
        self.is_open = False
        self.closed += 1

    def driver_version(self) -> str | None:
        return "570.1"

    def device_count(self) -> int:
        if self.counting:
            raise self.counting.pop(0)
        self.identified: dict[str, DeviceInfo] = {}
        return len(self.listed)

    def identify(self, slot: int) -> str:
        info = self.listed[slot]
        self._answer(info.uuid)
        self.identified = {**self.identified, info.uuid: info}
        return info.uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        return tuple(sorted(self.identified.values(), key=lambda info: info.index))

    def read(self, uuid: str) -> Reading:
        self._answer(uuid)
        self.reads += 1
        return self.answers.get(uuid, Reading(uuid=uuid, memory_total_mib=100, memory_used_mib=1))

    def read_slow(self, uuid: str) -> SlowReading:
        self._answer(uuid)
        return SlowReading(uuid=uuid, process_count=2)

    def _answer(self, uuid: str) -> None:
        assert self.is_open, "read while closed"
        self.threads.add(threading.current_thread().name)
        with self._lock:
            self.in_flight += 1
        try:
            gate = self.stuck.get(uuid)
            if gate is not None:
                self.blocked.add(uuid)
                gate.wait(30)
                self.blocked.discard(uuid)
            failure = self.failures.get(uuid)
            if failure is not None:
                raise failure
        finally:
            with self._lock:
                self.in_flight -= 1


class FakeHardwareWithEvents(FakeHardware):
    """Reports the entries of `events` in order."""

    def __init__(self, count: int = 3) -> None:
        super().__init__(count)
        self.events: list[DeviceEvent | Exception] = []
        self.waits = 0

    def wait_event(self, timeout_seconds: float) -> DeviceEvent | None:
        self.waits += 1
        if not self.events:
            time.sleep(timeout_seconds)
            return None
        event = self.events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event


class FakeHardwareWithNodes(FakeHardware):
    """Reports the entries of `lost` as device nodes that may not be used."""

    def __init__(self, lost: list[str]) -> None:
        super().__init__()
        self.lost = lost

    def lost_nodes(self) -> tuple[str, ...] | None:
        return tuple(self.lost)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds; the test fails when it doesn't in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions on plain state, in tests only
            await asyncio.sleep(0.002)
