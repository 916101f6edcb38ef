"""What must never go wrong when samples are recorded, each under the name by which it is asked for.

The finer cases are in tests/agent/sampling, tests/operator/placement and tests/operator/distribution; here each goes
through the whole component, as the agent and the operator use it.
"""

import asyncio
import gc
import math
import threading
import tracemalloc
import weakref
from dataclasses import replace
from typing import Any

import pytest

from gpufleet_agent.devices.base import LibraryMismatchError, Reading, UnknownDeviceError
from gpufleet_agent.sampling.errors import ImplausibleSampleError, InvalidReason, SamplerClosedError
from gpufleet_agent.sampling.health import HealthPolicy
from gpufleet_agent.sampling.node_registry import Instant, NodeRegistry
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_operator.distribution import apportion
from gpufleet_operator.fleet.engine_input import UNKNOWN_NODE, node_state
from gpufleet_operator.placement import Fleet, place, rank_devices
from gpufleet_operator.placement.errors import InvalidCapacityError, InvalidFleetError, PlacementError
from gpufleet_operator.placement.model import DeviceNeeds, Request
from gpufleet_testing.workflows import TIMING, FakeHardware, ObjectCluster, fake_hardware, gpu, published


def at(seconds: float) -> Instant:
    return Instant(monotonic=seconds, wall=1_000_000 + seconds)


def recording(hardware: FakeHardware) -> NodeRegistry:
    record = NodeRegistry(window_seconds=60, sample_seconds=1, policy=HealthPolicy())
    record.register(tuple(one.info for one in hardware.gpus), None, at(0))
    return record


def threads_end() -> None:
    """A thread says that it ends, and is gone a moment later."""
    for thread in threading.enumerate():
        if thread.name.startswith("gpu-"):
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} was left behind"


def fleet_of(status: dict[str, Any]) -> Fleet:
    """The operator's fleet of one node that published this."""
    body = {"metadata": {"name": "a"}, "spec": {}, "status": status}
    telemetry = GPUTelemetry.model_validate(body)
    return Fleet.of([node_state(telemetry, UNKNOWN_NODE, age_seconds=1, stale_after_seconds=90)])


def test_concurrent_recording() -> None:
    """Eight threads record for four devices while two read: nothing is lost, and every view adds up."""
    record = recording(fake_hardware(*(gpu(f"GPU-{i}", i) for i in range(4))))
    writers, each = 8, 400
    barrier, done = threading.Barrier(writers + 2), threading.Event()
    torn: list[str] = []

    def write(index: int) -> None:
        barrier.wait()
        for number in range(each):
            busy = number % 101  # memory says the same as utilization, so that a torn sample shows
            uuid = f"GPU-{index % 4}"
            record.record(
                Reading(uuid=uuid, memory_total_mib=100, memory_used_mib=min(busy, 100), utilization_percent=busy),
                at(1),
            )

    def read() -> None:
        barrier.wait()
        while not done.is_set():
            for device in record.snapshot(at(1)).devices:
                sample = device.sample
                if sample is not None and sample.memory_used_mib != sample.utilization_percent:
                    torn.append(device.info.uuid)

    writing = [threading.Thread(target=write, args=(index,)) for index in range(writers)]
    reading = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writing, *reading):
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    for thread in reading:
        thread.join()
    assert not torn
    snapshot = record.snapshot(at(1))
    assert snapshot.samples == writers * each
    assert not any(snapshot.dropped.values())


@pytest.mark.parametrize("counts", [0, 1])
async def test_initialization_failure(counts: int) -> None:
    """The driver doesn't fit, at once or when it is asked for its devices: typed error, nothing left half-started."""
    error = LibraryMismatchError("driver/library version mismatch")
    fails = {"counting" if counts else "opening": error}
    hardware = fake_hardware(gpu("GPU-0", 0), **fails)

    sampler = Sampler(hardware, timing=TIMING)
    with pytest.raises(LibraryMismatchError, match="version mismatch"):
        await sampler.start()
    with pytest.raises(SamplerClosedError):
        await sampler.start()
    assert sampler.snapshot().devices == ()
    assert {task.get_name() for task in asyncio.all_tasks()} - {"sampler-close"} == {
        asyncio.current_task().get_name()  # type: ignore[union-attr]  # a task runs this
    }
    assert not hardware.is_open
    threads_end()


async def test_division_by_zero_in_capacity_distribution() -> None:
    """No device has room: the division names it instead of dividing by zero, and the operator reserves nothing."""
    cluster = ObjectCluster()
    with pytest.raises(InvalidCapacityError, match="all capacities are 0") as caught:
        apportion(10, {"GPU-0": 0, "GPU-1": 0.0})
    assert isinstance(caught.value, PlacementError)
    assert apportion(10, {"GPU-0": 0, "GPU-1": 5}).items == {"GPU-0": 0, "GPU-1": 10}
    with pytest.raises(InvalidCapacityError):
        apportion(10, {})
    await cluster.join("a", fake_hardware(*(gpu(f"GPU-{i}", i, memory_used_mib=80_000) for i in range(2))))
    distribution = {"items": 10, "mode": "Proportional", "by": "FreeMemory"}
    cluster.apply("train", replicas=2, placement={"gang": True}, distribution=distribution)
    cluster.settle()
    assert cluster.assignments("train") == {}
    assert "all capacities are 0" in cluster.status("train").model_dump_json()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("utilization_percent", math.nan, InvalidReason.NOT_A_NUMBER),
        ("utilization_percent", 101, InvalidReason.OVER_100_PERCENT),
        ("memory_used_mib", math.inf, InvalidReason.INFINITE),
        ("memory_used_mib", -1, InvalidReason.NEGATIVE),
        ("memory_used_mib", 80_001, InvalidReason.USED_OVER_TOTAL),
        ("temperature_celsius", -274, InvalidReason.BELOW_ABSOLUTE_ZERO),
    ],
)
async def test_invalid_metrics(field: str, value: float, reason: InvalidReason) -> None:
    """Dropped with a typed error that names device and field, and never scheduled on; the other device is used."""
    bad = gpu("GPU-bad", 0)
    assert isinstance(bad.reading, Reading)
    values: dict[str, Any] = {field: value}
    reading = replace(bad.reading, **values)
    hardware = fake_hardware(replace(bad, reading=reading), gpu("GPU-good", 1, temperature_celsius=80))
    with pytest.raises(ImplausibleSampleError, match=f"GPU-bad: {field}") as caught:
        recording(hardware).record(reading, at(1))
    assert caught.value.reason is reason
    fleet = fleet_of(await published(hardware))
    decision = place(fleet, Request("ml/train", (0, 1)))
    assert [pick.devices for pick in decision.picks] == [("GPU-good",)]
    assert decision.diagnosis is not None
    assert "GPU-bad: has never been sampled" in decision.diagnosis.message


def test_memory_clean_up_on_shutdown() -> None:
    """A sampler that was closed frees threads, hardware, windows and itself; six lives take no more than one."""

    async def live() -> "weakref.ref[Sampler]":
        hardware = fake_hardware(*(gpu(f"GPU-{i}", i) for i in range(4)))
        sampler = Sampler(hardware, timing=TIMING)
        await sampler.start()
        await sampler.close()
        assert not hardware.is_open
        threads_end()
        return weakref.ref(sampler)

    def lives(number: int) -> int:
        for _ in range(number):
            gone = asyncio.run(live())
            gc.collect()
            assert gone() is None
        return tracemalloc.get_traced_memory()[0]

    lives(1)  # imports, caches of the interpreter
    tracemalloc.start()
    try:
        few, many = lives(1), lives(6)
    finally:
        tracemalloc.stop()
    assert many - few < 100_000, "bytes of a window alone would be more than this six times"


async def test_cancellation_during_recording() -> None:
    """Cancelled in the middle of a read: the read ends by itself, its answer is dropped, everything is let go of."""
    gate, entered = threading.Event(), threading.Event()

    class Held(FakeHardware):
        def read(self, uuid: str) -> Reading:
            if uuid == "GPU-1":
                entered.set()
                gate.wait(30)
            return super().read(uuid)

    hardware = Held((gpu("GPU-0", 0), gpu("GPU-1", 1)))
    sampler = Sampler(hardware, timing=TIMING)
    starting = asyncio.create_task(sampler.start())
    assert await asyncio.to_thread(entered.wait, 30)
    async with asyncio.timeout(30):  # the other device's first answer may come after that
        while all(device.sample is None for device in sampler.snapshot().devices):  # noqa: ASYNC110 - samples ring no bell
            await asyncio.sleep(0.001)
    starting.cancel()
    asyncio.get_running_loop().call_later(0.05, gate.set)
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not hardware.is_open
    snapshot = sampler.snapshot()
    assert [device.sample is not None for device in snapshot.devices] == [True, False]
    with pytest.raises(SamplerClosedError):
        await sampler.changed(snapshot.health_version)
    threads_end()


async def test_unregistered_device() -> None:
    """Rejected by name wherever a UUID comes in: hardware, recording, fleet, ranking, requests."""
    hardware = fake_hardware(gpu("GPU-0", 0))
    hardware.open()
    hardware.device_count()
    hardware.identify(0)
    with pytest.raises(UnknownDeviceError, match="GPU-x"):
        hardware.read("GPU-x")
    record = recording(hardware)
    with pytest.raises(ImplausibleSampleError, match="GPU-x") as caught:
        record.record(Reading(uuid="GPU-x"), at(1))
    assert caught.value.reason is InvalidReason.UNKNOWN_DEVICE
    assert record.snapshot(at(1)).dropped[InvalidReason.UNKNOWN_DEVICE] == 1
    fleet = fleet_of(await published(fake_hardware(gpu("GPU-0", 0))))
    with pytest.raises(InvalidFleetError, match="node a has no device GPU-x"):
        fleet.hold("a", ["GPU-x"])
    with pytest.raises(InvalidFleetError, match="device GPU-x is not in the fleet"):
        rank_devices(fleet, among=["GPU-0", "GPU-x"])
    decision = place(fleet, Request("ml/train", (0,), DeviceNeeds(include_uuids=frozenset({"GPU-x"}))))
    assert decision.diagnosis is not None
    assert "GPU-x of includeUUIDs is not in the fleet" in decision.diagnosis.message
