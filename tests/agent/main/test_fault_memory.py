"""The whole agent on simulated GPUs, killed and started again: what it said of faults is what it still says."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from gpufleet_agent.agent import Agent
from gpufleet_agent.devices.nvml import NvmlHardware
from gpufleet_agent.kube.model import TelemetryObject, parse_object
from gpufleet_agent.settings import Settings
from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION, RESOURCE
from gpufleet_simgpu.presets import make_node

if TYPE_CHECKING:
    from tests.conftest import Simulated

UUIDS = [gpu.uuid for gpu in make_node("h100", 4).gpus]


class Cluster:
    """One GPUTelemetry object, kept as JSON, that outlives the agents."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"uid": "u", "generation": 1, "resourceVersion": "1"}
        self.status: Mapping[str, Any] = {}
        self._news = asyncio.Condition()

    async def acknowledge(self, value: str) -> None:
        self.metadata["annotations"] = {ACKNOWLEDGED_FAULTS_ANNOTATION: value}
        await self._written()

    async def get(self) -> TelemetryObject:
        return parse_object({"metadata": self.metadata, "status": self.status})

    async def ensure(self) -> TelemetryObject:
        return await self.get()

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        self.status = status
        await self._written()
        return await self.get()

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        seen = ""
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self.metadata["resourceVersion"] != seen)  # noqa: B023 - read at once
            seen = self.metadata["resourceVersion"]
            yield await self.get()

    async def close(self) -> None:
        pass

    async def until(self, condition: Callable[[dict[str, list[str]]], object]) -> None:
        """Wait for a status whose faults, as codes by UUID, fulfil the condition."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: bool(self.status and condition(self.faults())))

    def faults(self) -> dict[str, list[str]]:
        return {
            device["uuid"]: [reason["code"] for reason in device["health"].get("reasons", ())]
            for device in self.status["devices"]
        }

    async def _written(self) -> None:
        async with self._news:
            self.metadata["resourceVersion"] = str(int(self.metadata["resourceVersion"]) + 1)
            self._news.notify_all()


def offered(kubelet: Any) -> set[str]:
    """What the kubelet may hand out whole."""
    plugin = kubelet.plugins.get(RESOURCE)
    return set(plugin.healthy) if plugin else set()


@asynccontextmanager
async def agent_on(cluster: Cluster, kubelet: Any) -> AsyncIterator[None]:
    settings = Settings(
        node_name="node-1",
        device_plugin_dir=kubelet.device_plugins,
        pod_resources_socket=kubelet.pod_resources,
        sample_seconds=0.05,
        heartbeat_seconds=1,
        listen_host="127.0.0.1",
        listen_port=0,
    )
    task = asyncio.create_task(Agent(settings, NvmlHardware(), cluster, random.Random(1)).run())  # noqa: S311 - jitter
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_a_fault_outlives_the_agent_until_it_is_acknowledged(simulated: "Simulated", kubelet: Any) -> None:
    async def main() -> None:
        cluster = Cluster()
        sick = {**{uuid: [] for uuid in UUIDS}, UUIDS[1]: ["XidError"]}
        async with kubelet:
            async with agent_on(cluster, kubelet):
                await kubelet.until(lambda: kubelet.serving() and len(offered(kubelet)) == 4)
                simulated.edit(lambda node: node.with_xid(2, 13).with_xid(1, 79))
                await cluster.until(lambda faults: faults == sick)
                await kubelet.until(lambda: offered(kubelet) == {*UUIDS} - {UUIDS[1]})
            since = cluster.status["devices"][1]["health"]["reasons"][0]["since"]
            kubelet.plugins.clear()
            stale = cluster.status["observedAt"]
            async with agent_on(cluster, kubelet):
                await kubelet.until(kubelet.serving)
                assert offered(kubelet) == {*UUIDS} - {UUIDS[1]}, "never offered in between"
                await cluster.until(lambda _: cluster.status["observedAt"] > stale)
                assert cluster.faults() == sick
                assert cluster.status["devices"][1]["health"]["reasons"][0]["since"] == since
                await cluster.acknowledge(cluster.status["observedAt"])
                await cluster.until(lambda faults: faults == {uuid: [] for uuid in UUIDS})
                await kubelet.until(lambda: offered(kubelet) == {*UUIDS})

    asyncio.run(main())


def test_a_device_that_fell_off_the_bus_is_missed_after_a_restart(simulated: "Simulated", kubelet: Any) -> None:
    async def main() -> None:
        cluster = Cluster()
        async with kubelet:
            async with agent_on(cluster, kubelet):
                await cluster.until(lambda faults: faults == {uuid: [] for uuid in UUIDS})
            simulated.write(make_node("h100", 3))
            async with agent_on(cluster, kubelet):
                await cluster.until(lambda faults: faults.get(UUIDS[3]) == ["DeviceLost"])
                await kubelet.until(lambda: kubelet.serving() and offered(kubelet) == {*UUIDS[:3]})
            cluster.status = {**cluster.status, "bootId": "another"}
            async with agent_on(cluster, kubelet):
                await cluster.until(lambda faults: faults == {uuid: [] for uuid in UUIDS[:3]})

    asyncio.run(main())


def test_a_bad_row_of_memory_is_a_fault_for_as_long_as_it_is_there(simulated: "Simulated", kubelet: Any) -> None:
    async def main() -> None:
        cluster = Cluster()
        simulated.edit(lambda node: node.with_gpu(0, remap_failed=1).with_gpu(1, remap_pending=1))
        async with kubelet:
            async with agent_on(cluster, kubelet):
                await cluster.until(lambda faults: faults.get(UUIDS[0]) == ["RowRemapFailed"])
                assert cluster.faults()[UUIDS[1]] == [], "waiting for a reset is no fault"
                (warning,) = cluster.status["devices"][1]["health"]["warnings"]
                assert (warning["code"], warning["recovery"]) == ("RowRemapPending", "Reset")
                since = cluster.status["devices"][0]["health"]["reasons"][0]["since"]
            async with agent_on(cluster, kubelet):
                await cluster.until(lambda faults: faults.get(UUIDS[0]) == ["RowRemapFailed"])
                assert cluster.status["devices"][0]["health"]["reasons"][0]["since"] == since

    asyncio.run(main())
