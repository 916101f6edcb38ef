"""A file system that hangs, under a plugin whose CDI file lies on it: nothing but that file waits."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpufleet_agent.plugin.inject.strategies import DeviceInjector, DeviceListStrategy
from gpufleet_agent.plugin.manager import PluginManager
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.resources import Served
from gpufleet_agent.runtime.version_signal import VersionSignal
from gpufleet_api.names import RESOURCE
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.plugins import (
    Disk,
    idle_plugin,
    injection_settings,
    make_driver,
    plugin_context,
    running_plugin,
    serving_plugin,
)

CRI = DeviceListStrategy.CDI_CRI
DEVICES = tuple(
    AdvertisedDevice(f"GPU-{index}", index, healthy=True, nodes=(f"/dev/nvidia{index}",)) for index in range(3)
)


async def until(condition: Callable[[], object]) -> None:
    """Waits for the effect of a thread."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)


@asynccontextmanager
async def hung_allocate(kubelet: FakeKubelet, disk: Disk, size: int = 1) -> AsyncIterator["asyncio.Task[Any]"]:
    """Allocate as the kubelet calls it, while the disk hangs and until the block's end."""
    devices = frozenset(await kubelet.prefer(kubelet.plugins[RESOURCE].healthy, size))
    disk.hang()
    pending = asyncio.create_task(kubelet.allocate(devices))
    try:
        await until(lambda: disk.writing)
        yield pending
    finally:
        disk.go_on()


async def test_calls_and_faults_are_served_while_allocate_waits_for_disk(
    kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        plugin = kubelet.plugins[RESOURCE]
        async with hung_allocate(kubelet, disk, 2) as pending:
            await plugin.call("GetDevicePluginOptions", pb.Empty(), pb.DevicePluginOptions)
            rig.advertise(*rig.devices[:3], replace(rig.devices[3], healthy=False), *rig.devices[4:])
            await kubelet.until(lambda: plugin.unhealthy == {"GPU-3"})
            assert rig.in_flight.active, "our own listing has to wait, however long the disk takes"
            assert rig.allocations == []
            assert not pending.done()
        await pending
        names = [device.name for device in kubelet.responses[-1].cdi_devices]
        assert names == ["gpufleet.dev/gpu=GPU-0", "gpufleet.dev/gpu=GPU-1"]
        assert len(rig.allocations) == 1


async def test_hanging_disk_rejects_pods_and_withdraws_devices_until_it_recovers(
    kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    async with (
        kubelet,
        running_plugin(kubelet, injection=injection_settings(tmp_path, CRI), patience_seconds=1) as rig,
    ):
        await kubelet.until(kubelet.serving)
        plugin = kubelet.plugins[RESOURCE]
        async with hung_allocate(kubelet, disk) as pending:
            with pytest.raises(
                Exception, match="DeviceFilesNotReady: cannot write the CDI file: the file system did not"
            ):
                await pending
            await kubelet.until(lambda: not plugin.healthy)
            assert len(plugin.unhealthy) == 8
            assert rig.allocations == []
            written = disk.writes
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await rig.injector.prepare()
            assert disk.writes == written, "no second write is begun behind one that hangs"
        await kubelet.until(lambda: len(plugin.healthy) == 8)
        assert not plugin.stopped
        assert await kubelet.admit("next", 1) == {"GPU-0"}


async def test_a_new_device_is_not_named_before_it_is_in_the_file(
    kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        plugin = kubelet.plugins[RESOURCE]
        disk.hang()
        sick = replace(rig.devices[0], healthy=False)
        rig.advertise(sick, *rig.devices[1:], AdvertisedDevice("GPU-8", 8, healthy=True, nodes=("/dev/nvidia8",)))
        await kubelet.until(lambda: plugin.unhealthy == {"GPU-0"})
        assert "GPU-8" not in plugin.healthy
        disk.go_on()
        await kubelet.until(lambda: "GPU-8" in plugin.healthy)


async def test_an_allocation_that_the_kubelet_has_given_up_meanwhile_gives_nothing(
    kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        async with hung_allocate(kubelet, disk) as pending:
            again = await kubelet.prefer(kubelet.plugins[RESOURCE].healthy, 1)
        with pytest.raises(Exception, match="NoPreferredAllocation: another allocation began"):
            await pending
        assert rig.allocations == []
        assert rig.in_flight.active, "the later one"
        await kubelet.allocate(frozenset(again))
        assert len(rig.allocations) == 1


async def test_a_kubelet_that_hangs_up_while_it_waits_leaves_nothing_in_flight(
    kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        async with hung_allocate(kubelet, disk) as pending:
            pending.cancel()
            async with asyncio.timeout(5), rig.in_flight.idle():
                pass
        assert rig.allocations == []
        assert await kubelet.admit("next", 1) == {"GPU-0"}


async def test_device_whose_node_disappeared_is_not_allocated(kubelet: FakeKubelet, tmp_path: Path) -> None:
    async with serving_plugin(kubelet, injection=injection_settings(tmp_path, CRI)) as rig:
        (device,) = await kubelet.prefer(frozenset({"GPU-5"}), 1)
        (tmp_path / "driver" / "dev" / "nvidia5").unlink()
        with pytest.raises(Exception, match="DeviceFilesNotReady: no device node for GPU-5"):
            await kubelet.allocate(frozenset({device}))
        assert rig.allocations == []


async def test_concurrent_callers_share_the_next_scan(disk: Disk, tmp_path: Path) -> None:
    devices = DEVICES[:2]
    injection = DeviceInjector(injection_settings(tmp_path, CRI), lambda: devices, VersionSignal(), patience_seconds=20)

    async def prepared() -> str:
        await injection.prepare()
        return (tmp_path / "cdi" / "gpufleet.dev-gpu.json").read_text()

    disk.hang()
    first = asyncio.create_task(prepared())
    await until(lambda: disk.writing)
    devices = DEVICES
    others = [asyncio.create_task(prepared()) for _ in range(20)]
    await asyncio.sleep(0)
    disk.go_on()
    assert "GPU-1" in await first
    assert all("GPU-2" in text for text in await asyncio.gather(*others))
    assert (disk.writes, disk.most_at_once) == (2, 1)
    await injection.close()


async def test_pod_with_a_reserved_but_withheld_device_gets_the_reason(
    *, kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    (make_driver(tmp_path) / "dev" / "nvidia5").unlink()

    async with (
        kubelet,
        running_plugin(kubelet, injection=injection_settings(tmp_path, CRI), patience_seconds=1) as rig,
    ):
        await kubelet.until(kubelet.serving)
        plugin = kubelet.plugins[RESOURCE]
        rig.api.reserve(assignment("train-0", "GPU-5"), assignment("train-1", "GPU-6", "GPU-7"))
        words = "DeviceFilesNotReady: GPU-5 reserved for ml/train-0/main is not ready: no device node"
        with pytest.raises(Exception, match=words):
            await kubelet.admit("train-0", 1)
        offered = plugin.healthy
        disk.hang()
        await kubelet.until(lambda: not plugin.healthy)
        kubelet.pods[ContainerKey("ml", "train-1", "main")] = frozenset()
        assert await kubelet.prefer(offered, 2) == []
        with pytest.raises(
            Exception, match=r"DeviceFilesNotReady: GPU-6 reserved for ml/train-1/main .*: the file system did not"
        ):
            await kubelet.allocate(frozenset({"GPU-6", "GPU-7"}))
        rig.advertise(*(replace(device, healthy=False) for device in rig.devices))
        assert await kubelet.prefer(offered, 2) == []
        with pytest.raises(Exception, match="DeviceUnhealthy"):
            await kubelet.allocate(frozenset({"GPU-6", "GPU-7"}))
        disk.go_on()


async def test_devices_do_not_flap_on_a_slow_disk(disk: Disk, tmp_path: Path) -> None:
    changes = VersionSignal()
    injection = DeviceInjector(injection_settings(tmp_path, CRI), lambda: DEVICES, changes, patience_seconds=0.1)

    def healthy() -> set[bool]:
        return {device.healthy for device in injection.usable(DEVICES)}

    await injection.prepare()
    reported = changes.version
    for _ in range(3):
        disk.hang()
        with pytest.raises(TimeoutError, match="did not respond within"):
            await injection.prepare()
        disk.go_on()
        await until(lambda: injection._files._scan is None)
        assert healthy() == {False}
    assert changes.version == reported + 1
    await injection.prepare()
    assert healthy() == {True}
    await injection.close()


async def test_a_loop_that_was_held_up_does_not_take_a_look_for_late_that_was_not(tmp_path: Path) -> None:
    changes = VersionSignal()
    injection = DeviceInjector(injection_settings(tmp_path, CRI), lambda: DEVICES, changes, patience_seconds=0.1)
    await injection.prepare()
    reported = changes.version
    look = asyncio.create_task(injection.prepare())
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - this is what holds it up
    await look
    assert changes.version == reported
    assert all(device.healthy for device in injection.usable(DEVICES))
    await injection.close()


async def close(injection: DeviceInjector) -> None:
    await injection.close()


async def cancelled_close(injection: DeviceInjector) -> None:
    closing = asyncio.create_task(injection.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


@pytest.mark.parametrize("end", [close, cancelled_close])
async def test_file_is_removed_after_a_running_write_even_if_cancelled(
    end: Callable[[DeviceInjector], Coroutine[Any, Any, None]], disk: Disk, tmp_path: Path
) -> None:
    injection = DeviceInjector(injection_settings(tmp_path, CRI), lambda: DEVICES, VersionSignal())
    disk.hang()
    preparing = asyncio.create_task(injection.prepare())
    await until(lambda: disk.writing)
    preparing.cancel()
    ending = asyncio.create_task(end(injection))
    await asyncio.sleep(0)
    disk.go_on()
    await ending
    await until(lambda: "device-files" not in {thread.name for thread in threading.enumerate()})
    assert list((tmp_path / "cdi").iterdir()) == []


async def test_a_start_that_hangs_ends_in_time_and_nothing_is_left_of_it(
    kubelet: FakeKubelet, disk: Disk, tmp_path: Path
) -> None:
    async with idle_plugin(kubelet) as rig:
        injection = DeviceInjector(
            injection_settings(tmp_path, CRI), lambda: DEVICES, rig.devices_changed, patience_seconds=0.05
        )
        disk.hang()
        with pytest.raises(TimeoutError, match=r"the file system did not respond within 0\.05 s"):
            await PluginManager([Served(RESOURCE)], plugin_context(kubelet, rig, injection)).start()
        disk.go_on()
        await until(lambda: "device-files" not in {thread.name for thread in threading.enumerate()})
        assert list((tmp_path / "cdi").iterdir()) == []
