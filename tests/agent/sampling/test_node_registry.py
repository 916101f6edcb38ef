import asyncio
import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest

from gpufleet_agent.devices.base import (
    DeviceEvent,
    DeviceInfo,
    Reading,
    Recovery,
    SlowReading,
    ThrottleReason,
    UnknownDeviceError,
)
from gpufleet_agent.sampling.errors import ImplausibleSampleError, SamplerClosedError
from gpufleet_agent.sampling.health import HealthPolicy, ReadFault
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.saved_state import FaultAcknowledgment, SavedState
from gpufleet_agent.sampling.snapshot import EventCount, HealthState

DEVICES = tuple(DeviceInfo(f"GPU-{index}", index, "Sim") for index in range(3))
XID_79 = DeviceEvent("GPU-1", "XidError", 79, "fell off the bus", fault=True)
XID_13 = DeviceEvent("GPU-1", "XidError", 13, "graphics engine exception", fault=False)


def at(seconds: float) -> Instant:
    return Instant(monotonic=seconds, wall=1_000_000 + seconds)


def make(on_change: Callable[[], None] = lambda: None) -> NodeRegistry:
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy(), on_change=on_change)
    record.register(DEVICES, "570.1", at(0))
    return record


def test_a_view_shows_the_last_good_sample_its_age_and_the_window() -> None:
    record = make()
    record.record_slow(SlowReading(uuid="GPU-1", process_count=4), at(1))
    record.record(Reading(uuid="GPU-1", utilization_percent=20), at(1))
    record.record(Reading(uuid="GPU-1", utilization_percent=40), at(2))
    record.record(Reading(uuid="GPU-0", utilization_percent=1), at(1.5))

    snapshot = record.snapshot(at(5))

    assert [device.info.index for device in snapshot.devices] == [0, 1, 2]
    first, second, third = snapshot.devices
    assert second.sample is not None
    assert (second.sample.utilization_percent, second.sample.process_count) == (40, 4)
    assert second.sample.taken_at == 1_000_002
    assert second.sample_age_seconds == 3
    assert second.window is not None
    assert second.window.utilization_percent is not None
    assert second.window.utilization_percent.mean == 30
    assert first.sample is not None
    assert first.sample.process_count is None
    assert (third.sample, third.sample_age_seconds, third.window) == (None, None, None)
    assert (snapshot.driver_version, snapshot.samples) == ("570.1", 3)
    assert (snapshot.sample_time, snapshot.sample_age_seconds) == (1_000_002, 3)


def test_a_bad_sample_is_counted_and_the_good_one_before_it_ages() -> None:
    record = make()
    record.record(Reading(uuid="GPU-0", temperature_celsius=40), at(1))
    with pytest.raises(ImplausibleSampleError):
        record.record(Reading(uuid="GPU-0", temperature_celsius=-300), at(2))
    with pytest.raises(ImplausibleSampleError):
        record.record(Reading(uuid="GPU-9"), at(2))
    with pytest.raises(ImplausibleSampleError):
        record.record_slow(SlowReading(uuid="GPU-9", process_count=1), at(2))

    snapshot = record.snapshot(at(3))

    assert snapshot.dropped == {"BelowAbsoluteZero": 1, "UnknownDevice": 2}
    assert snapshot.devices[0].sample is not None
    assert snapshot.devices[0].sample.temperature_celsius == 40
    assert snapshot.devices[0].sample_age_seconds == 2
    assert snapshot.devices[0].health.state is HealthState.HEALTHY
    assert snapshot.samples == 1


def test_values_of_a_missing_slow_reading_expire() -> None:
    record = make()
    record.record_slow(SlowReading(uuid="GPU-0", process_count=4), at(1))
    assert record.record(Reading(uuid="GPU-0"), at(16)).process_count == 4
    assert record.record(Reading(uuid="GPU-0"), at(16.5)).process_count is None


def test_levels_of_both_kinds_of_reading_reach_the_health() -> None:
    record = make()
    record.record_slow(SlowReading(uuid="GPU-0", row_remap_failed=True), at(1))
    record.record_slow(SlowReading(uuid="GPU-1", row_remap_pending=True), at(1))
    for second in (1, 2, 3):
        reasons = frozenset({ThrottleReason.HW_THERMAL_SLOWDOWN, ThrottleReason.SW_POWER_CAP})
        record.record(Reading(uuid="GPU-2", throttle_reasons=reasons), at(second))
    healths = [device.health for device in record.snapshot(at(3)).devices]
    assert [health.state.value for health in healths] == ["Unhealthy", "Healthy", "Healthy"]
    assert [[reason.code for reason in health.reasons] for health in healths] == [["RowRemapFailed"], [], []]
    warned = [[reason.code for reason in health.warnings] for health in healths]
    assert warned == [[], ["RowRemapPending"], ["HwThermalSlowdown"]]


def test_a_view_never_changes_under_its_reader() -> None:
    record = make()
    record.record(Reading(uuid="GPU-0", utilization_percent=1), at(1))
    before = record.snapshot(at(1))
    kept = repr(before)
    record.record(Reading(uuid="GPU-0", utilization_percent=99), at(2))
    record.failed("GPU-0", ReadFault.DEVICE_LOST, "gone", at(3))
    assert repr(before) == kept


def test_a_read_that_failed_is_counted_and_an_overdue_one_is_not() -> None:
    record = make()
    record.failed("GPU-0", ReadFault.READ_FAILED, "error", at(1))
    record.failed("GPU-0", ReadFault.UNRESPONSIVE, "slow", at(2))
    assert record.snapshot(at(3)).dropped == {"ReadFailed": 1}
    with pytest.raises(UnknownDeviceError, match="GPU-9"):
        record.failed("GPU-9", ReadFault.READ_FAILED, "error", at(3))


def test_events_are_counted_by_code_and_only_faults_count_against_the_device() -> None:
    record = make()
    record.event(XID_13, at(1))
    record.event(XID_13, at(2))
    assert record.snapshot(at(2)).devices[1].health.state is HealthState.HEALTHY
    record.event(XID_79, at(3))
    device = record.snapshot(at(3)).devices[1]
    assert device.events == (
        EventCount("XidError", 13, 2, 1_000_002),
        EventCount("XidError", 79, 1, 1_000_003),
    )
    assert [(reason.code, reason.message) for reason in device.health.reasons] == [("XidError", "fell off the bus")]
    assert record.faults() == {"XidError"}


def test_an_event_of_no_known_device_is_held_against_all() -> None:
    record = make()
    record.event(DeviceEvent(None, "XidError", 79, "fell off the bus", fault=True), at(1))
    assert {device.health.state for device in record.snapshot(at(1)).devices} == {HealthState.UNHEALTHY}


def test_the_version_rises_with_health_and_devices_and_with_nothing_else() -> None:
    reported: list[int] = []
    record = make(lambda: reported.append(record.health_version if reported else 1))
    first = record.health_version
    record.record(Reading(uuid="GPU-0", utilization_percent=1), at(1))
    record.event(XID_13, at(1))
    record.failed("GPU-0", ReadFault.READ_FAILED, "error", at(2))
    assert record.health_version == first
    record.event(XID_79, at(3))
    record.register(DEVICES, "570.1", at(4))
    assert record.health_version == first + 1
    record.register((*DEVICES, DeviceInfo("GPU-3", 3, "Sim")), "570.1", at(5))
    assert record.health_version == first + 2
    assert len(reported) == 3


def test_a_device_that_the_driver_lists_no_longer_is_lost_and_not_forgotten() -> None:
    record = make()
    record.record(Reading(uuid="GPU-2", temperature_celsius=50), at(1))
    record.register(DEVICES[:2], "570.1", at(2))
    gone = record.snapshot(at(3)).devices[2]
    assert [reason.code for reason in gone.health.reasons] == ["DeviceLost"]
    assert gone.sample is not None


def test_without_a_driver_every_device_has_that_fault_until_it_answers_again() -> None:
    record = make()
    record.unavailable("driver not loaded", at(1))
    snapshot = record.snapshot(at(1))
    assert snapshot.unavailable == "driver not loaded"
    assert {device.health.reasons[0].code for device in snapshot.devices} == {"DriverUnavailable"}
    record.register(DEVICES, "570.2", at(2))
    for second in (3, 4, 5):
        record.record(Reading(uuid="GPU-0"), at(second))
    snapshot = record.snapshot(at(5))
    assert (snapshot.unavailable, snapshot.driver_version) == (None, "570.2")
    assert snapshot.devices[0].health.state is HealthState.HEALTHY
    assert snapshot.devices[1].health.state is HealthState.UNHEALTHY


def test_no_device_at_all_is_a_calm_state() -> None:
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    record.register((), None, at(0))
    snapshot = record.snapshot(at(1))
    assert (snapshot.devices, snapshot.sample_time, snapshot.sample_age_seconds, snapshot.unavailable) == (
        (),
        None,
        None,
        None,
    )


def test_recording_after_close_is_rejected_and_the_view_still_answers() -> None:
    record = make()
    record.record(Reading(uuid="GPU-0"), at(1))
    record.close()
    attempts: list[Callable[[], object]] = [
        lambda: record.record(Reading(uuid="GPU-0"), at(2)),
        lambda: record.record_slow(SlowReading(uuid="GPU-0"), at(2)),
        lambda: record.failed("GPU-0", ReadFault.DEVICE_LOST, "gone", at(2)),
        lambda: record.event(XID_79, at(2)),
        lambda: record.register(DEVICES, None, at(2)),
        lambda: record.unavailable("no driver", at(2)),
        lambda: record.restore(SavedState(0), at(2)),
        lambda: record.acknowledge(FaultAcknowledgment(0), at(2)),
    ]
    for attempt in attempts:
        with pytest.raises(SamplerClosedError):
            attempt()
    assert record.snapshot(at(3)).samples == 1


def test_threads_that_record_at_once_lose_nothing() -> None:
    record = make()
    threads, each = 8, 500
    barrier = threading.Barrier(threads)

    def work(index: int) -> None:
        barrier.wait()
        for number in range(each):
            record.record(Reading(uuid=f"GPU-{index % 3}", utilization_percent=number % 101), at(number / 100))
            record.event(XID_13, at(number / 100))
            if number % 50 == 0:
                record.snapshot(at(number / 100))

    running = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

    snapshot = record.snapshot(at(5))
    assert snapshot.samples == threads * each
    assert snapshot.devices[1].events[0].count == threads * each
    assert [device.window.samples for device in snapshot.devices if device.window] == [62, 62, 62]


async def test_tasks_and_threads_that_record_together_lose_nothing() -> None:
    """As in the agent: tasks of the event loop write readings, and another thread may read them."""
    record = make()
    tasks, each = 6, 300

    async def records(index: int) -> None:
        for number in range(each):
            record.record(Reading(uuid=f"GPU-{index % 3}", utilization_percent=number % 101), at(number / 100))
            await asyncio.sleep(0)

    async def slowly(index: int) -> None:
        for number in range(each):
            reading = SlowReading(uuid=f"GPU-{index % 3}", process_count=number)
            await asyncio.to_thread(record.record_slow, reading, at(number / 100))

    looking = [asyncio.to_thread(lambda: record.snapshot(at(1)).samples) for _ in range(20)]
    jobs = [records(index) for index in range(tasks)] + [slowly(index) for index in range(3)]
    seen = asyncio.gather(*looking)
    await asyncio.gather(*jobs, seen)
    assert all(0 <= samples <= tasks * each for samples in seen.result())
    assert record.snapshot(at(4)).samples == tasks * each
    record.record(Reading(uuid="GPU-0"), at(4))
    newest = record.snapshot(at(4)).devices[0].sample
    assert newest is not None
    assert newest.process_count == each - 1


def test_closing_while_threads_record_ends_each_with_the_typed_error() -> None:
    record = make()
    rejected: list[Exception] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        try:
            while True:
                record.record(Reading(uuid="GPU-0"), at(1))
        except SamplerClosedError as error:
            rejected.append(error)

    running = [threading.Thread(target=work) for _ in range(4)]
    for thread in running:
        thread.start()
    started.wait()
    record.close()
    for thread in running:
        thread.join()
    assert len(rejected) == 4
    frozen = record.snapshot(at(2)).samples
    assert record.snapshot(at(3)).samples == frozen


def test_unreferenced_record_is_freed() -> None:
    record = make()
    record.record(Reading(uuid="GPU-0"), at(1))
    with pytest.raises(ImplausibleSampleError):
        record.record(Reading(uuid="GPU-0", utilization_percent=200), at(2))
    gone = weakref.ref(record)
    record.close()
    del record
    gc.collect()
    assert gone() is None


def test_thousands_of_samples_keep_no_memory() -> None:
    """A short soak: rings, counters and reasons are bounded, so that after a full window nothing grows."""
    record = make()

    def samples(first: int, count: int) -> None:
        for second in range(first, first + count):
            for device in DEVICES:
                reasons = frozenset({ThrottleReason.HW_THERMAL_SLOWDOWN}) if second % 40 < 20 else frozenset()
                used = second % 80_000
                reading = Reading(uuid=device.uuid, memory_used_mib=used, throttle_reasons=reasons)
                record.record(reading, at(second))
                with suppress(ImplausibleSampleError):
                    record.record(Reading(uuid=device.uuid, temperature_celsius=-300), at(second))
                record.record_slow(SlowReading(uuid=device.uuid, ecc_uncorrected=second % 7), at(second))
            record.event(XID_13, at(second))
            record.event(XID_79, at(second))
            record.failed("GPU-0", ReadFault.READ_FAILED, "error", at(second))
            record.acknowledge(FaultAcknowledgment(1_000_000 + second), at(second))
            if second % 10 == 0:
                record.snapshot(at(second))

    tracemalloc.start()
    try:
        samples(0, 150)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        samples(150, 450)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert record.snapshot(at(600)).samples == 600 * len(DEVICES)
    assert after - before < 4_000, f"{after - before} bytes more after 450 seconds more"


@pytest.mark.parametrize(("unloaded", "left"), [(False, ["XidError"]), (True, [])])
def test_only_a_driver_that_was_not_loaded_has_reset_the_devices(unloaded: bool, left: list[str]) -> None:
    record = make()
    record.event(DeviceEvent("GPU-1", "XidError", 48, "ECC", fault=True, recovery=Recovery.RESET), at(1))
    record.unavailable("initialization failed", at(2), unloaded=unloaded)
    record.register(DEVICES, "570.1", at(3))
    for second in (4, 5, 6):
        record.record(Reading(uuid="GPU-1"), at(second))
    assert [reason.code for reason in record.snapshot(at(6)).devices[1].health.reasons] == left


def test_failing_slow_reads_are_a_fault_despite_good_reads() -> None:
    record = make()

    def minute(start: int, *, failing: bool) -> None:
        for second in range(start, start + 60):
            if second % 5 == 0 and failing:
                record.failed("GPU-1", ReadFault.READ_FAILED, "unknown error", at(second), slow=True)
            elif second % 5 == 0:
                record.record_slow(SlowReading(uuid="GPU-1", process_count=0), at(second))
            record.record(Reading(uuid="GPU-1"), at(second))
            seen.append(len(record.snapshot(at(second)).devices[1].health.reasons))

    seen: list[int] = []
    minute(0, failing=True)
    assert seen == [0] * 10 + [1] * 50, "active from the third on, without flapping"
    seen.clear()
    minute(60, failing=False)
    assert seen == [1] * 2 + [0] * 58


def test_slow_reads_that_fail_keep_no_other_fault_from_ending() -> None:
    record = make()
    record.failed("GPU-1", ReadFault.UNRESPONSIVE, "slow", at(0))
    for second in (1, 2, 3):
        record.failed("GPU-1", ReadFault.READ_FAILED, "unknown error", at(second), slow=second < 3)
        record.record(Reading(uuid="GPU-1"), at(second))
    assert [reason.code for reason in record.snapshot(at(3)).devices[1].health.reasons] == ["Unresponsive"]
    for second in (4, 5):
        record.failed("GPU-1", ReadFault.READ_FAILED, "unknown error", at(second), slow=True)
        record.record(Reading(uuid="GPU-1"), at(second))
    assert [reason.code for reason in record.snapshot(at(5)).devices[1].health.reasons] == ["ReadFailed"]
