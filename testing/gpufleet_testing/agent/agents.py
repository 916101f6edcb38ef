"""Agents with everything around them: GPUs, the object in the cluster and the scripted kubelet."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import pytest

from gpufleet_agent.agent import Agent, build_agent
from gpufleet_agent.devices.base import DeviceInfo, Hardware, Reading, SlowReading
from gpufleet_agent.kube.api import KubeApi
from gpufleet_agent.metrics.options import MetricsOptions
from gpufleet_agent.plugin.inject.strategies import InjectorSettings
from gpufleet_agent.resources import MigStrategy
from gpufleet_agent.settings import AgentSettings
from gpufleet_api.names import Transport
from gpufleet_testing.agent.kube_apis import WatchedObjectApi
from gpufleet_testing.agent.kubelet import FakeKubelet


class IdleGpus:
    """Four GPUs, or a driver that isn't there."""

    def __init__(self) -> None:
        self.opening: Exception | None = None
        self.open_count = 0
        self.infos: tuple[DeviceInfo, ...] = tuple(
            DeviceInfo(f"GPU-{index}", index, "NVIDIA H100", memory_total_mib=80_000, nodes=(f"/dev/nvidia{index}",))
            for index in range(4)
        )
        self.on_read: Callable[[str], Reading] = lambda uuid: Reading(
            uuid=uuid, memory_total_mib=80_000, memory_used_mib=500, utilization_percent=3
        )
        self.on_read_slow: Callable[[str], SlowReading] = lambda uuid: SlowReading(uuid=uuid, process_count=0)

    def divide(self, partition: DeviceInfo) -> None:
        """Puts a partition in the place of its GPU."""
        self.infos = tuple(partition if info.index == partition.index else info for info in self.infos)

    def open(self) -> None:
        if self.opening is not None:
            raise self.opening
        self.open_count += 1

    def close(self) -> None:
        self.open_count = 0

    def driver_version(self) -> str | None:
        return "580.1"

    def device_count(self) -> int:
        return len(self.infos)

    def identify(self, slot: int) -> str:
        return self.infos[slot].uuid

    def devices(self) -> tuple[DeviceInfo, ...]:
        return self.infos

    def read(self, uuid: str) -> Reading:
        return self.on_read(uuid)

    def read_slow(self, uuid: str) -> SlowReading:
        return self.on_read_slow(uuid)


class AgentFields(TypedDict, total=False):
    """Settings that a test may change."""

    own_pod: tuple[str, str] | None
    shared_resource: str
    heartbeat_seconds: float
    state_dir: Path | None
    mig_strategy: MigStrategy
    injection: InjectorSettings
    metrics: MetricsOptions
    transport: Transport
    dra_driver: str
    plugins_dir: Path
    plugins_registry_dir: Path


def make_settings(kubelet: FakeKubelet, **changes: Unpack[AgentFields]) -> AgentSettings:
    """Builds settings for that kubelet that sample often, listen on any port and keep nothing on disk."""
    usual = AgentSettings(
        node_name="node-1",
        sample_seconds=0.05,
        device_plugin_dir=kubelet.device_plugins,
        pod_resources_socket=kubelet.pod_resources,
        state_dir=None,
        listen_host="127.0.0.1",
        listen_port=0,
    )
    return replace(usual, **changes)


def make_agent(kubelet: FakeKubelet, api: KubeApi, hardware: Hardware, **changes: Unpack[AgentFields]) -> Agent:
    """Inside the event loop: an agent for that object, those GPUs and the scripted kubelet; settings as named."""
    fields: AgentFields = {"heartbeat_seconds": 0.3, **changes}
    return _build(make_settings(kubelet, **fields), hardware, api)


def _build(settings: AgentSettings, hardware: Hardware, api: KubeApi) -> Agent:
    """Builds an agent that writes statuses ten times as often as in a cluster."""
    agent = build_agent(settings, hardware, api, random.Random(1))  # noqa: S311 - jitter
    publisher = agent.publisher
    policy = publisher._policy  # noqa: SLF001 - tests need not wait as long
    publisher._policy = replace(policy, min_interval=0.1, max_backoff=0.5)  # noqa: SLF001 - as above
    return agent


@asynccontextmanager
async def running_agent(agent: Agent) -> AsyncIterator[None]:
    """Runs the agent until the end of the block; it must not end before."""
    task = asyncio.create_task(agent.run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class AgentRig:
    """What an agent needs, all of it fake but the kubelet's sockets."""

    def __init__(self, kubelet: FakeKubelet, **settings: Unpack[AgentFields]) -> None:
        self.kubelet = kubelet
        self.hardware = IdleGpus()
        self.api = WatchedObjectApi()
        self.settings = make_settings(kubelet, **settings)

    def occupy(self, port: int) -> None:
        """Has the agent listen on a port that is taken."""
        self.settings = replace(self.settings, listen_port=port)

    def make(self) -> Agent:
        return _build(self.settings, self.hardware, self.api)

    @asynccontextmanager
    async def running(self, *, poll_seconds: float = 3.0) -> AsyncIterator[Agent]:
        """The agent, until the end of the block; then it is cancelled."""
        agent = self.make()
        agent.poller._interval_seconds = poll_seconds  # noqa: SLF001 - tests need not wait as long
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def fetch(self, agent: Agent, path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.http_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), body

    def held_by(self, status: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
        return {device["uuid"]: device["allocatedTo"] for device in status["devices"] if "allocatedTo" in device}

    def sockets(self) -> list[str]:
        """In the kubelet's directory of plugins."""
        return sorted(path.name for path in self.kubelet.device_plugins.iterdir())
