"""The reader below the sampler: from what the driver does to what the agent knows of it."""

import asyncio
from dataclasses import replace

import pynvml
import structlog

from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.sampling.sampler import Sampler
from gpufleet_agent.sampling.timing import Timing
from gpufleet_simgpu.model import ALL, SimMig, SimNode
from gpufleet_simgpu.presets import make_node
from gpufleet_testing.agent.nvml import FailCall, nvml_is_closed, until_listening
from gpufleet_testing.simulated import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


async def test_a_device_that_was_lost_before_we_came_is_found_once_it_answers(simulated: Simulated) -> None:

    simulated.edit(lambda node: node.lose(1))
    sampler = Sampler(NvmlHardware(), timing=Timing(sample=0.01, event_wait=0.05, reopen_first=0.1))
    await sampler.start()
    snapshot = sampler.snapshot()
    assert (len(snapshot.devices), snapshot.unlisted) == (3, 1)
    simulated.edit(lambda node: node.restore(1))
    async with asyncio.timeout(20):
        while len(sampler.snapshot().devices) < 4:
            await sampler.changed(sampler.snapshot().health_version)
    assert sampler.snapshot().unlisted == 0
    await sampler.close()
    assert nvml_is_closed()


async def test_device_stuck_at_start_delays_no_other_and_joins_later(simulated: Simulated) -> None:

    simulated.edit(lambda node: node.with_delay(1, ALL, 3_600_000))
    sampler = Sampler(NvmlHardware(), timing=Timing(sample=0.01, deadline=0.5, event_wait=0.05, reopen_first=0.05))
    await sampler.start()
    snapshot = sampler.snapshot()
    assert [device.info.index for device in snapshot.devices] == [0, 2, 3]
    assert snapshot.unlisted == 1
    async with asyncio.timeout(20):
        while (window := sampler.snapshot().devices[0].window) is None or window.samples < 20:  # noqa: ASYNC110 - samples ring no bell
            await asyncio.sleep(0.01)
        simulated.edit(lambda node: node.restore(1))
        while len(sampler.snapshot().devices) < 4:
            await sampler.changed(sampler.snapshot().health_version)
    snapshot = sampler.snapshot()
    assert snapshot.unlisted == 0
    assert [device.info.nvlink_peers for device in snapshot.devices] == [
        tuple(sorted({*UUIDS} - {uuid})) for uuid in UUIDS
    ]
    await sampler.close()
    assert nvml_is_closed()


async def test_node_has_its_devices_without_a_driver_version(simulated: Simulated, fail_call: FailCall) -> None:
    fail_call("nvmlSystemGetDriverVersion", pynvml.NVML_ERROR_UNKNOWN)
    sampler = Sampler(NvmlHardware(), timing=Timing(sample=0.01, event_wait=0.05))
    await sampler.start()
    snapshot = sampler.snapshot()
    assert (len(snapshot.devices), snapshot.driver_version, snapshot.unavailable) == (4, None, None)
    assert all(device.sample is not None for device in snapshot.devices)
    await sampler.close()


async def test_divided_gpu_with_failing_mig_mode_is_listed_once_it_answers(simulated: Simulated) -> None:
    simulated.edit(
        lambda node: node.with_gpu(1, mig_mode=1, migs=(SimMig("MIG-1", "3g.40gb", 2, 40448, 20000),)).with_fail(
            1, "mig_mode", pynvml.NVML_ERROR_UNKNOWN
        )
    )
    sampler = Sampler(NvmlHardware(partitions=True), timing=Timing(sample=0.01, event_wait=0.05, reopen_first=0.1))
    with structlog.testing.capture_logs() as events:
        await sampler.start()
    (warning,) = [event for event in events if event["event"] == "device not listed"]
    assert (warning["log_level"], warning["error"]) == ("warning", "GPU 1: MIG mode: Unknown Error (999)")
    assert [device.info.index for device in sampler.snapshot().devices] == [0, 2, 3]
    simulated.edit(lambda node: node.restore(1))
    async with asyncio.timeout(20):
        while len(sampler.snapshot().devices) < 4:
            await sampler.changed(sampler.snapshot().health_version)
    (partition,) = [device.info for device in sampler.snapshot().devices if device.info.parent]
    assert (partition.uuid, partition.parent) == ("MIG-1", UUIDS[1])
    await sampler.close()


async def test_failing_power_on_every_gpu_keeps_all_in_use(simulated: Simulated) -> None:
    def without_power(node: SimNode) -> SimNode:
        for index in range(4):
            for what in ("power_milliwatts", "power_limit_milliwatts", "utilization_percent", "temperature_celsius"):
                node = node.with_fail(index, what, pynvml.NVML_ERROR_UNKNOWN)
        return node

    simulated.edit(without_power)
    sampler = Sampler(NvmlHardware(), timing=Timing(sample=0.01, slow=0.05, event_wait=0.05))
    await sampler.start()
    failed = asyncio.ensure_future(sampler.failed())
    async with asyncio.timeout(20):
        while (snapshot := sampler.snapshot()).samples < 100:  # noqa: ASYNC110 - samples ring no bell
            await asyncio.sleep(0.01)
    assert not failed.done()
    failed.cancel()
    assert [device.health.reasons for device in snapshot.devices] == [()] * 4
    for device in snapshot.devices:
        assert device.sample is not None
        assert (device.sample.memory_total_mib, device.sample.power_milliwatts) == (81559, None)
    assert snapshot.dropped == {}
    names = {"power", "power limit", "utilization", "temperature"}
    assert snapshot.dropped_values.keys() == {(name, "ReadFailed") for name in names}
    await sampler.close()
    assert nvml_is_closed()


async def test_xid_faults_follow_the_drivers_recovery_action(simulated: Simulated) -> None:
    simulated.edit(lambda node: node.with_gpu(1, recovery_action=0).with_gpu(2, recovery_action=0))
    hardware = NvmlHardware()
    sampler = Sampler(hardware, timing=Timing(sample=0.01, slow=0.05, event_wait=0.05))
    await sampler.start()

    async def becomes(*expected: list[str]) -> None:
        async with asyncio.timeout(20):
            while (snapshot := sampler.snapshot()) and [
                [reason.code for reason in device.health.reasons] for device in snapshot.devices
            ] != list(expected):
                await sampler.changed(snapshot.health_version)

    await until_listening(hardware)
    # GPU 0's driver does not say what it needs; GPU 1 needs a reset; GPU 2 needs nothing.
    simulated.edit(lambda node: node.with_gpu(1, recovery_action=1).with_xid(0, 109).with_xid(1, 109).with_xid(2, 109))
    await becomes(["XidError"], ["RecoveryReset", "XidError"], [], [])
    simulated.edit(lambda node: node.with_gpu(1, recovery_action=0))
    await becomes(["XidError"], [], [], [])
    await sampler.close()


async def test_the_whole_road_from_the_driver_to_the_view(simulated: Simulated) -> None:
    """Heat, XID, loss, stuck calls, recovery and a driver restart, as the sampler tells them."""
    timing = Timing(
        sample=0.01,
        slow=0.05,
        deadline=0.5,
        event_wait=0.05,
        retry_first=0.02,
        retry_max=0.05,
        reopen_first=0.1,
        reopen_max=0.2,
    )
    hardware = NvmlHardware()
    sampler = Sampler(hardware, timing=timing)

    def state() -> list[list[str]]:
        return [[reason.code for reason in device.health.reasons] for device in sampler.snapshot().devices]

    async def becomes(expected: list[list[str]]) -> None:
        async with asyncio.timeout(20):
            while (snapshot := sampler.snapshot()) and state() != expected:
                await sampler.changed(snapshot.health_version)

    async def main() -> None:
        await sampler.start()
        assert [device.info.uuid for device in sampler.snapshot().devices] == UUIDS
        simulated.edit(lambda node: node.with_gpu(0, temperature_celsius=91))
        async with asyncio.timeout(10):
            while (sample := sampler.snapshot().devices[0].sample) and sample.temperature_celsius != 91:  # noqa: ASYNC110 - samples ring no bell
                await asyncio.sleep(0.01)
        await until_listening(hardware)
        simulated.edit(lambda node: node.with_xid(1, 79))
        await becomes([[], ["XidError"], [], []])
        simulated.edit(lambda node: node.lose(1))
        await becomes([[], ["DeviceLost", "XidError"], [], []])
        simulated.edit(lambda node: node.with_delay(2, ALL, 3_600_000))
        await becomes([[], ["DeviceLost", "XidError"], ["Unresponsive"], []])
        simulated.edit(lambda node: node.restore(1).restore(2))
        await becomes([[], [], [], []])
        simulated.edit(lambda node: replace(node, error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED))
        await becomes([["DriverUnavailable"]] * 4)
        simulated.edit(lambda node: replace(node, error=0))
        await becomes([[], [], [], []])

    try:
        await main()
    finally:
        await sampler.close()
    assert nvml_is_closed()
