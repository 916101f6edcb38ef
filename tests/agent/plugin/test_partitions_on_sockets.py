"""Kinds of partitions as resources of their own, against a scripted kubelet over real unix sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gpufleet_agent.metrics.probes import LoopWatchdog
from gpufleet_agent.plugin.manager import PluginManager
from gpufleet_agent.plugin.types import AdvertisedDevice
from gpufleet_agent.resources import Served, partition_resource
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.plugins import PluginRig, idle_plugin, plugin_context

SMALL, MEDIA = "gpufleet.dev/mig-1g.10gb", "gpufleet.dev/mig-1g.10gb.me"
WHOLE = (AdvertisedDevice("GPU-0", 0, healthy=True),)
PARTITIONS = (
    AdvertisedDevice("MIG-a", 1, healthy=True, profile="1g.10gb"),
    AdvertisedDevice("MIG-b", 1, healthy=True, profile="1g.10gb"),
    AdvertisedDevice("MIG-m", 1, healthy=True, profile="1g.10gb+me"),
)


@asynccontextmanager
async def serving(kubelet: FakeKubelet, rig: PluginRig) -> AsyncIterator[PluginManager]:
    """All plugins of the devices that the rig knows, beside the rig's own, which don't run."""
    plugins = PluginManager([Served(RESOURCE), Served(SHARED_RESOURCE, 2)], plugin_context(kubelet, rig))
    await plugins.start()
    await rig.ready()
    loops = plugins.loops(rig.ready, LoopWatchdog(lambda: 0.0).register)
    tasks = [asyncio.create_task(loop) for loop in loops.values()]
    try:
        yield plugins
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await plugins.close()


def test_the_name_is_that_of_the_main_resource_and_the_profile() -> None:
    assert partition_resource("nvidia.com/gpu", "1g.10gb+me") == "nvidia.com/mig-1g.10gb.me"
    assert partition_resource(RESOURCE, "1g.10gb") == SMALL


async def test_each_kind_has_its_own_resource_from_when_it_is_known(kubelet: FakeKubelet) -> None:
    async with kubelet, idle_plugin(kubelet) as rig:
        rig.devices = WHOLE
        async with serving(kubelet, rig) as plugins:
            await kubelet.until(lambda: kubelet.serving() and kubelet.serving(SHARED_RESOURCE))
            assert plugins.unregistered() == []
            rig.advertise(*WHOLE, *PARTITIONS)
            await kubelet.until(lambda: kubelet.serving(SMALL) and kubelet.serving(MEDIA))
            healthy = {name: plugin.healthy for name, plugin in kubelet.plugins.items()}
            assert healthy == {
                RESOURCE: {"GPU-0"},
                SHARED_RESOURCE: {"GPU-0::0", "GPU-0::1"},
                SMALL: {"MIG-a", "MIG-b"},
                MEDIA: {"MIG-m"},
            }
            assert await kubelet.admit("bare", 1, resource=SMALL) == {"MIG-a"}
            assert kubelet.responses[-1].envs["NVIDIA_VISIBLE_DEVICES"] == "MIG-a"
            assert await kubelet.admit("other", 1, resource=SMALL) == {"MIG-b"}
            assert await kubelet.admit("media", 1, resource=MEDIA) == {"MIG-m"}
            assert await kubelet.admit("whole", 1) == {"GPU-0"}
            with pytest.raises(Exception, match="InsufficientUnreservedDevices"):
                await kubelet.admit("greedy", 1, resource=SMALL)
        assert [path.name for path in kubelet.device_plugins.iterdir()] == ["kubelet.sock"]


async def test_a_kind_that_comes_back_after_a_kubelet_restart_is_registered_again(kubelet: FakeKubelet) -> None:
    async with idle_plugin(kubelet) as rig:
        rig.devices = PARTITIONS
        async with kubelet, serving(kubelet, rig):
            await kubelet.until(lambda: kubelet.serving(SMALL))
            assert RESOURCE not in kubelet.plugins, "a node of partitions alone has no whole device to offer"
            await kubelet.stop()
            await kubelet.start()
            await kubelet.until(lambda: kubelet.serving(SMALL) and kubelet.serving(MEDIA))
