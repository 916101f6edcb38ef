"""A file system that hangs, under a plugin whose CDI file lies on it: nothing but that file waits."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpufleet_agent.changes import Changes
from gpufleet_agent.plugin.answers import KnownDevice
from gpufleet_agent.plugin.injection import Injection, Strategy
from gpufleet_agent.plugin.plugins import Plugins, Surroundings
from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.resources import Served
from gpufleet_api.names import RESOURCE

CRI = Strategy.CDI_CRI
DEVICES = tuple(KnownDevice(f"GPU-{index}", index, healthy=True, nodes=(f"/dev/nvidia{index}",)) for index in range(3))


async def until(condition: Callable[[], object]) -> None:
    """For what a thread does, which tells nobody."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)


@asynccontextmanager
async def hung_allocate(kubelet: Any, disk: Any, size: int = 1) -> AsyncIterator["asyncio.Task[Any]"]:
    """Allocate as the kubelet calls it, while the disk hangs and until the block's end."""
    devices = frozenset(await kubelet.prefer(kubelet.plugins[RESOURCE].healthy, size))
    disk.hang()
    pending = asyncio.create_task(kubelet.allocate(devices))
    try:
        await until(lambda: disk.writing)
        yield pending
    finally:
        disk.go_on()


def test_while_allocate_waits_for_the_disk_other_calls_are_answered_and_faults_told(
    kubelet: Any, running: Any, configure: Any, disk: Any
) -> None:
    async def scenario() -> None:
        async with kubelet, running(injection=configure(CRI)) as rig:
            await kubelet.until(kubelet.serving)
            plugin = kubelet.plugins[RESOURCE]
            async with hung_allocate(kubelet, disk, 2) as pending:
                await plugin.call("GetDevicePluginOptions", pb.Empty(), pb.DevicePluginOptions)
                rig.tell(*rig.devices[:3], replace(rig.devices[3], healthy=False), *rig.devices[4:])
                await kubelet.until(lambda: plugin.unhealthy == {"GPU-3"})
                assert rig.admission.in_flight, "our own listing has to wait, however long the disk takes"
                assert rig.grants == []
                assert not pending.done()
            await pending
            names = [device.name for device in kubelet.responses[-1].cdi_devices]
            assert names == ["gpufleet.dev/gpu=GPU-0", "gpufleet.dev/gpu=GPU-1"]
            assert len(rig.grants) == 1

    asyncio.run(scenario())


def test_a_disk_that_hangs_for_long_refuses_the_pod_and_withdraws_the_devices_until_it_goes_on(
    kubelet: Any, running: Any, configure: Any, disk: Any
) -> None:
    async def scenario() -> None:
        async with kubelet, running(injection=configure(CRI), patience_seconds=0.2) as rig:
            await kubelet.until(kubelet.serving)
            plugin = kubelet.plugins[RESOURCE]
            async with hung_allocate(kubelet, disk) as pending:
                with pytest.raises(Exception, match="NotPrepared: can't write the CDI file: the file system doesn't"):
                    await pending
                await kubelet.until(lambda: not plugin.healthy)
                assert len(plugin.unhealthy) == 8
                assert rig.grants == []
                written = disk.writes
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        await rig.injection.prepare()
                assert disk.writes == written, "no second write is begun behind one that hangs"
            await kubelet.until(lambda: len(plugin.healthy) == 8)
            assert not plugin.stopped
            assert await kubelet.admit("next", 1) == {"GPU-0"}

    asyncio.run(scenario())


def test_a_new_device_is_not_named_before_it_is_in_the_file(
    kubelet: Any, running: Any, configure: Any, disk: Any
) -> None:
    async def scenario() -> None:
        async with kubelet, running(injection=configure(CRI)) as rig:
            await kubelet.until(kubelet.serving)
            plugin = kubelet.plugins[RESOURCE]
            disk.hang()
            sick = replace(rig.devices[0], healthy=False)
            rig.tell(sick, *rig.devices[1:], KnownDevice("GPU-8", 8, healthy=True, nodes=("/dev/nvidia8",)))
            await kubelet.until(lambda: plugin.unhealthy == {"GPU-0"})
            assert "GPU-8" not in plugin.healthy
            disk.go_on()
            await kubelet.until(lambda: "GPU-8" in plugin.healthy)

    asyncio.run(scenario())


def test_an_allocation_that_the_kubelet_has_given_up_meanwhile_gives_nothing(
    kubelet: Any, running: Any, configure: Any, disk: Any
) -> None:
    async def scenario() -> None:
        async with kubelet, running(injection=configure(CRI)) as rig:
            await kubelet.until(kubelet.serving)
            async with hung_allocate(kubelet, disk) as pending:
                again = await kubelet.prefer(kubelet.plugins[RESOURCE].healthy, 1)
            with pytest.raises(Exception, match="NotAsked: another allocation began"):
                await pending
            assert rig.grants == []
            assert rig.admission.in_flight, "the later one"
            await kubelet.allocate(frozenset(again))
            assert len(rig.grants) == 1

    asyncio.run(scenario())


def test_a_kubelet_that_hangs_up_while_it_waits_leaves_nothing_in_flight(
    kubelet: Any, running: Any, configure: Any, disk: Any
) -> None:
    async def scenario() -> None:
        async with kubelet, running(injection=configure(CRI)) as rig:
            await kubelet.until(kubelet.serving)
            async with hung_allocate(kubelet, disk) as pending:
                pending.cancel()
                async with asyncio.timeout(5), rig.admission.quiet():
                    pass
            assert rig.grants == []
            assert await kubelet.admit("next", 1) == {"GPU-0"}

    asyncio.run(scenario())


def test_a_device_whose_node_went_away_since_it_was_listed_is_not_handed_over(
    kubelet: Any, running: Any, configure: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with kubelet, running(injection=configure(CRI)) as rig:
            await kubelet.until(kubelet.serving)
            (device,) = await kubelet.prefer(frozenset({"GPU-5"}), 1)
            (tmp_path / "driver" / "dev" / "nvidia5").unlink()
            with pytest.raises(Exception, match="NotPrepared: no device node for GPU-5"):
                await kubelet.allocate(frozenset({device}))
            assert rig.grants == []

    asyncio.run(scenario())


def test_many_at_once_write_one_after_the_other_and_each_sees_a_file_that_is_in_place(
    configure: Any, disk: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        path = tmp_path / "cdi" / "gpufleet.dev-gpu.json"
        injection = Injection(configure(CRI), lambda: DEVICES, Changes())

        async def prepared() -> bool:
            path.unlink(missing_ok=True)
            await injection.prepare()
            return path.exists()

        assert all(await asyncio.gather(*(prepared() for _ in range(20))))
        assert disk.most_at_once == 1
        assert disk.writes == 20
        await injection.close()

    asyncio.run(scenario())


async def close(injection: Injection) -> None:
    await injection.close()


async def cancelled_close(injection: Injection) -> None:
    closing = asyncio.create_task(injection.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


@pytest.mark.parametrize("end", [close, cancelled_close])
def test_the_file_goes_after_what_is_still_being_written_whether_or_not_anybody_waits(
    end: Callable[[Injection], Coroutine[Any, Any, None]], configure: Any, disk: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        injection = Injection(configure(CRI), lambda: DEVICES, Changes())
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

    asyncio.run(scenario())


def test_a_start_that_hangs_ends_in_time_and_nothing_is_left_of_it(
    kubelet: Any, idle_rig: Any, configure: Any, disk: Any, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with idle_rig() as rig:
            injection = Injection(configure(CRI), lambda: DEVICES, rig.devices_changed, patience_seconds=0.05)
            around = Surroundings(
                directory=kubelet.device_plugins,
                devices=rig.known,
                devices_changed=rig.devices_changed,
                lister=rig.lister,
                own=rig.own,
                holdings=rig.holdings,
                admission=rig.admission,
                granted=rig.grant,
                refused=rig.refusals.append,
                injection=injection,
                counters=rig.counters,
                listed=rig.listed,
            )
            disk.hang()
            with pytest.raises(TimeoutError, match=r"the file system doesn't answer within 0\.05 s"):
                await Plugins([Served(RESOURCE)], around).start()
            disk.go_on()
            await until(lambda: "device-files" not in {thread.name for thread in threading.enumerate()})
            assert list((tmp_path / "cdi").iterdir()) == []

    asyncio.run(scenario())
