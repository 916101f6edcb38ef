"""An object in a cluster that outlives agents, and agents on simulated GPUs that write to it."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import pytest

from gpufleet_agent.agent import Agent
from gpufleet_agent.devices.base import Hardware
from gpufleet_agent.kube.model import TelemetryObject, parse_object
from gpufleet_agent.settings import Settings
from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION


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

    async def tell(self, event: Any) -> None:
        pass

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


@pytest.fixture(scope="session")
def make_cluster() -> Callable[[], Cluster]:
    """Inside the event loop: `cluster = make_cluster()`."""
    return Cluster


@pytest.fixture
def make_agent(kubelet: Any) -> Callable[[Cluster, Hardware], Agent]:
    """Inside the event loop: an agent for that object, those GPUs and the scripted kubelet."""
    settings = Settings(
        node_name="node-1",
        device_plugin_dir=kubelet.device_plugins,
        pod_resources_socket=kubelet.pod_resources,
        sample_seconds=0.05,
        heartbeat_seconds=1,
        listen_host="127.0.0.1",
        listen_port=0,
    )
    return lambda cluster, hardware: Agent(settings, hardware, cluster, random.Random(1))  # noqa: S311 - jitter
