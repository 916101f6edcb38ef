"""Which memory errors a contained one (XID 94) makes harmless, and when."""

import threading
from collections.abc import Iterable

import pytest

from gpufleet_agent.devices.base import DeviceEvent, DeviceInfo, ProcessMemory, Recovery, SlowReading
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.saved_state import SavedDevice, SavedState
from gpufleet_agent.sampling.snapshot import HealthReason, HealthSnapshot, HealthState
from gpufleet_testing.agent.sampling import FAST, FakeHardwareWithEvents, until


def at(seconds: float) -> Instant:
    return Instant(monotonic=seconds, wall=1_000_000 + seconds)


def listed(pids: Iterable[int] | None) -> tuple[ProcessMemory, ...] | None:
    return None if pids is None else tuple(ProcessMemory(pid, 5) for pid in pids)


class Gpu:
    """A registry with one GPU, or with its partitions."""

    def __init__(self, *, partitions: int = 0) -> None:
        self.registry = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
        names = [f"MIG-{number}" for number in range(partitions)] or ["GPU-0"]
        self.infos = [DeviceInfo(name, 0, "Sim", parent="GPU-0" if partitions else None) for name in names]
        self.registry.register(self.infos, "570.1", at(0))

    def slow(
        self,
        second: float,
        count: int | None,
        pids: Iterable[int] | None = (),
        *,
        device: int = 0,
        begun: float | None = None,
    ) -> tuple[int, int]:
        """Records a slow reading three times, after which a fault that it does not show has ended."""
        reading = SlowReading(uuid=self.infos[device].uuid, processes=listed(pids), ecc_uncorrected=count)
        for _ in range(3):
            self.registry.record_slow(reading, at(second), begun)
        return self.shown(device)

    def shown(self, device: int = 0) -> tuple[int, int]:
        """Returns how many errors are a fault, and how many are over."""
        health = self.registry.snapshot(at(0)).devices[device].health
        messages = {reason.code: reason.message for reason in (*health.reasons, *health.warnings)}
        assert (health.state is HealthState.UNHEALTHY) == ("EccUncorrected" in messages)
        faults, others = (messages.get(code, ": 0").split(": ")[-1] for code in ("EccUncorrected", "EccContained"))
        return int(faults), int(others)

    def xid_94(self, second: float, device: int = 0) -> None:
        event = DeviceEvent(self.infos[device].uuid, "XidError", 94, "", fault=False, contained=True)
        self.registry.event(event, at(second))


def test_errors_counted_before_the_event_stay_a_fault() -> None:
    gpu = Gpu()
    assert gpu.slow(0, 5, [4711]) == (5, 0)
    gpu.xid_94(1)
    assert gpu.slow(5, 6, [4711]) == (6, 0)
    assert gpu.slow(10, 6) == (5, 1)
    assert gpu.slow(500, 6) == (5, 1)
    assert gpu.slow(505, 0) == (0, 0), "a reset"


def test_other_partition_keeps_errors_counted_before_the_event() -> None:
    gpu = Gpu(partitions=2)
    for device in range(2):
        assert gpu.slow(0, 3, [4711 + device], device=device) == (3, 0)
    gpu.xid_94(1, device=0)
    assert gpu.slow(5, 4, [4711], device=0) == (4, 0)
    assert gpu.slow(5, 4, [4712], device=1) == (3, 1)
    assert gpu.slow(10, 4, device=0) == (3, 1)


def test_other_partition_needs_no_list_of_its_programs() -> None:
    gpu = Gpu(partitions=2)
    gpu.slow(0, 0, None, device=1)
    gpu.xid_94(1, device=0)
    assert gpu.slow(5, 1, None, device=1) == (0, 1)


def test_event_that_names_no_partition_lasts_on_each_as_long_as_its_programs() -> None:
    gpu = Gpu(partitions=2)
    for device in range(2):
        gpu.slow(0, 0, [4711 + device], device=device)
    for device in range(2):
        gpu.xid_94(1, device)
    assert [gpu.slow(5, 1, [4711 + device], device=device) for device in range(2)] == [(1, 0), (1, 0)]
    assert gpu.slow(10, 1, device=0) == (0, 1)
    assert gpu.slow(10, 1, [4712], device=1) == (1, 0)


@pytest.mark.parametrize("second", [10, 100], ids=["within the lag", "much later"])
def test_second_rise_is_a_fault_while_the_program_runs_on(second: float) -> None:
    gpu = Gpu()
    gpu.slow(0, 0, [4711])
    gpu.xid_94(1)
    gpu.slow(5, 1, [4711])
    assert gpu.slow(second, 3, [4711]) == (3, 0)
    assert gpu.slow(second + 5, 3) == (2, 1)


@pytest.mark.parametrize(
    ("unchanged_at", "shown"), [(56, (0, 1)), (60, (1, 0))], ids=["at the end of the lag", "after it"]
)
def test_first_rise_is_contained_within_the_lag(unchanged_at: float, shown: tuple[int, int]) -> None:
    gpu = Gpu()
    gpu.slow(0, 0, [4711])
    gpu.xid_94(1)
    gpu.slow(unchanged_at, 0, [4711])
    gpu.slow(unchanged_at + 5, 1, [4711])
    assert gpu.slow(unchanged_at + 10, 1) == shown


@pytest.mark.parametrize("before", [None, []], ids=["processes unknown", "it started since the last reading"])
def test_error_lasts_while_a_program_listed_after_the_event_runs(before: list[int] | None) -> None:
    gpu = Gpu()
    gpu.slow(0, 0, before)
    gpu.xid_94(1)
    assert gpu.slow(5, 1, None if before is None else [4711]) == (1, 0)
    assert gpu.slow(10, 1, [4711]) == (1, 0)
    assert gpu.slow(15, 1, None) == (1, 0)
    assert gpu.slow(20, 1, [4711, 4712]) == (1, 0)
    assert gpu.slow(25, 1, [4712]) == (0, 1)


def test_list_read_before_the_event_ends_no_error() -> None:
    gpu = Gpu()
    gpu.slow(0, 0)
    gpu.xid_94(5)
    assert gpu.slow(6, 1, [], begun=4) == (1, 0), "recorded after the event"
    assert gpu.slow(10, 1, [4711]) == (1, 0)
    assert gpu.slow(15, 1) == (0, 1)


@pytest.mark.parametrize("age", [16, None], ids=["too old", "no reading"])
def test_errors_of_unknown_age_are_a_fault(age: float | None) -> None:
    gpu = Gpu()
    if age is not None:
        gpu.slow(100 - age, 0)
    gpu.xid_94(100)
    assert gpu.slow(101, 2) == (2, 0)
    assert gpu.slow(106, 3) == (2, 1), "the count rose after the event"


def test_several_contained_errors_end_with_the_last_program() -> None:
    gpu = Gpu()
    gpu.slow(0, 0, [4711])
    gpu.xid_94(1)
    gpu.slow(5, 1, [4711])
    gpu.xid_94(6)
    assert gpu.slow(10, 2, [4712]) == (2, 0)
    assert gpu.slow(15, 2, [4711]) == (0, 2)
    gpu.xid_94(16)
    assert gpu.slow(20, 3, [4711]) == (1, 2)


def test_errors_after_a_reset_are_a_fault() -> None:
    gpu = Gpu()
    gpu.slow(0, 0)
    gpu.xid_94(1)
    assert gpu.slow(5, 5) == (0, 5)
    assert gpu.slow(10, 2) == (2, 0)


def test_reset_ends_the_wait_for_a_contained_error() -> None:
    gpu = Gpu()
    gpu.slow(0, 5)
    gpu.xid_94(1)
    gpu.slow(5, 0)
    assert gpu.slow(10, 1) == (1, 0)


def restarted(over: int) -> Gpu:
    """Returns the state after a restart of an agent whose status has this number of errors that are over."""
    gpu = Gpu()
    message = f"contained memory errors since the last reset, whose programs have ended: {over}"
    warning = HealthReason("EccContained", message, 1_000_000, Recovery.RESET, fault=False)
    health = HealthSnapshot(HealthState.HEALTHY, warnings=(warning,))
    gpu.registry.restore(SavedState(1_000_000, "570.1", {"GPU-0": SavedDevice(gpu.infos[0], health)}), at(0))
    return gpu


def test_error_whose_program_ran_at_a_restart_stays_a_fault() -> None:
    gpu = restarted(1)
    assert gpu.slow(1, 2, [4711]) == (1, 1)
    assert gpu.slow(5, 2) == (1, 1)


def test_error_after_a_reset_without_an_agent_is_a_fault() -> None:
    assert restarted(2).slow(1, 1) == (1, 0)


class SlowList(FakeHardwareWithEvents):
    """One device. A slow read blocks until `gate` is set and returns what was true when it began."""

    def __init__(self) -> None:
        super().__init__(count=1)
        self.gate = threading.Event()
        self.gate.set()
        self.pids: tuple[int, ...] = ()
        self.errors = 0
        self.in_read = False

    def read_slow(self, uuid: str) -> SlowReading:
        reading = SlowReading(uuid=uuid, processes=listed(self.pids), ecc_uncorrected=self.errors)
        self.in_read = not self.gate.is_set()
        assert self.gate.wait(30)
        return reading


async def test_sampler_reports_when_a_slow_read_began() -> None:
    now, hardware = [1.0], SlowList()
    sampler = Sampler(hardware, timing=FAST, clock=lambda: at(now[0]))
    await sampler.start()
    hardware.gate.clear()
    await until(lambda: hardware.in_read)  # its list is empty, its count 0
    now[0] = 1.01
    hardware.events.append(DeviceEvent("GPU-0", "XidError", 94, "", fault=False, contained=True))
    await until(lambda: bool(sampler.snapshot().devices[0].events))
    now[0] = 1.02
    hardware.pids, hardware.errors = (4711,), 1
    hardware.gate.set()

    def codes() -> list[str]:
        health = sampler.snapshot().devices[0].health
        return [reason.code for reason in (*health.reasons, *health.warnings)]

    await until(lambda: codes() != [])
    assert codes() == ["EccUncorrected"]
    hardware.pids = ()
    await until(lambda: codes() == ["EccContained"])
    await sampler.close()
