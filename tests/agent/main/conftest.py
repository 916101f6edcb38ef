"""An object in a cluster that outlives agents, and agents on simulated GPUs that write to it."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from gpufleet_agent.agent import Agent
from gpufleet_agent.devices.base import DeviceInfo, Hardware, Reading, SlowReading
from gpufleet_agent.kube.api import KubeError
from gpufleet_agent.kube.model import Assignment, PodEvent, TelemetryObject, parse_object
from gpufleet_agent.settings import Settings
from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION


class Cluster:
    """One GPUTelemetry object, kept as JSON, that outlives the agents."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"uid": "u", "generation": 1, "resourceVersion": "1"}
        self.status: Mapping[str, Any] = {}
        self.away = False
        """Nobody answers."""
        self._news = asyncio.Condition()

    async def acknowledge(self, value: str) -> None:
        self.metadata["annotations"] = {ACKNOWLEDGED_FAULTS_ANNOTATION: value}
        await self._written()

    async def get(self) -> TelemetryObject:
        self._answer()
        return parse_object({"metadata": self.metadata, "status": self.status})

    async def ensure(self) -> TelemetryObject:
        return await self.get()

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        self._answer()
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

    def _answer(self) -> None:
        if self.away:
            raise KubeError("away")

    async def _written(self) -> None:
        async with self._news:
            self.metadata["resourceVersion"] = str(int(self.metadata["resourceVersion"]) + 1)
            self._news.notify_all()


@pytest.fixture(scope="session")
def make_cluster() -> Callable[[], Cluster]:
    """Inside the event loop: `cluster = make_cluster()`."""
    return Cluster


@pytest.fixture
def make_agent(kubelet: Any) -> Callable[..., Agent]:
    """Inside the event loop: an agent for that object, those GPUs and the scripted kubelet; settings as named.

    Nothing is kept on disk unless they say so.
    """
    settings = Settings(
        node_name="node-1",
        device_plugin_dir=kubelet.device_plugins,
        pod_resources_socket=kubelet.pod_resources,
        state_dir=None,
        sample_seconds=0.05,
        heartbeat_seconds=1,
        listen_host="127.0.0.1",
        listen_port=0,
    )

    def make(cluster: Cluster, hardware: Hardware, **changes: Any) -> Agent:
        return Agent(replace(settings, **changes), hardware, cluster, random.Random(1))  # noqa: S311 - jitter

    return make


class FakeHardware:
    """Four GPUs, or a driver that isn't there."""

    def __init__(self) -> None:
        self.opening: Exception | None = None
        self.lost: frozenset[str] = frozenset()
        self.open_count = 0

    def open(self) -> None:
        if self.opening is not None:
            raise self.opening
        self.open_count += 1

    def close(self) -> None:
        self.open_count = 0

    def driver_version(self) -> str | None:
        return "580.1"

    def slots(self) -> int:
        return 4

    def identify(self, slot: int) -> str:
        return f"GPU-{slot}"

    def devices(self) -> tuple[DeviceInfo, ...]:
        return tuple(
            DeviceInfo(f"GPU-{index}", index, "NVIDIA H100", memory_total_mib=80_000, nodes=(f"/dev/nvidia{index}",))
            for index in range(4)
        )

    def read(self, uuid: str) -> Reading:
        return Reading(uuid=uuid, memory_total_mib=80_000, memory_used_mib=500, utilization_percent=3)

    def read_slow(self, uuid: str) -> SlowReading:
        return SlowReading(uuid=uuid, process_count=0)


@pytest.fixture(scope="session")
def make_hardware() -> Callable[[], FakeHardware]:
    """Four GPUs that answer at once: `gpus = make_hardware()`."""
    return FakeHardware


class FakeApi:
    """The object in the cluster with a live watch."""

    def __init__(self) -> None:
        self.object = TelemetryObject("uid-node", 1, 1)
        self.statuses: list[Mapping[str, Any]] = []
        self.events: list[PodEvent] = []
        self.closed = False
        self.ensured = asyncio.Event()
        self._news = asyncio.Condition()

    async def reserve(self, *assignments: Assignment) -> None:
        await self._write(self.object.generation + 1, assignments)

    async def get(self) -> TelemetryObject:
        return self.object

    async def ensure(self) -> TelemetryObject:
        self.ensured.set()
        return self.object

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        self.statuses.append(status)
        await self._write(self.object.generation, self.object.assignments)
        return self.object

    async def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        seen = 0
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self.object.resource_version > seen)  # noqa: B023 - read at once
            seen = self.object.resource_version
            yield self.object

    async def tell(self, event: PodEvent) -> None:
        async with self._news:
            self.events.append(event)
            self._news.notify_all()

    async def close(self) -> None:
        self.closed = True

    async def until(self, condition: Callable[[Mapping[str, Any]], object], seconds: float = 10) -> Mapping[str, Any]:
        """Wait for a status that fulfils the condition."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: bool(self.statuses and condition(self.statuses[-1])))
        return self.statuses[-1]

    async def until_told(self, count: int) -> list[PodEvent]:
        """Wait for events."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.events) >= count)
        return self.events

    async def _write(self, generation: int, assignments: tuple[Assignment, ...]) -> None:
        async with self._news:
            version = self.object.resource_version + 1
            self.object = TelemetryObject(self.object.uid, generation, version, assignments)
            self._news.notify_all()


class Rig:
    """What an agent needs, all of it fake but the kubelet's sockets."""

    def __init__(self, kubelet: Any, **settings: Any) -> None:
        self.kubelet = kubelet
        self.hardware = FakeHardware()
        self.api = FakeApi()
        usual: dict[str, Any] = {
            "node_name": "node-1",
            "sample_seconds": 0.05,
            "device_plugin_dir": kubelet.device_plugins,
            "pod_resources_socket": kubelet.pod_resources,
            "state_dir": None,
            "listen_host": "127.0.0.1",
            "listen_port": 0,
        }
        self.settings = Settings(**{**usual, **settings})

    def make(self) -> Agent:
        return Agent(self.settings, self.hardware, self.api, random.Random(1))  # noqa: S311 - jitter

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """The agent, until the end of the block; then it is cancelled."""
        agent = self.make()
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


@pytest.fixture
def make_rig(kubelet: Any) -> Callable[..., Rig]:
    """Inside the event loop: an agent's surroundings, with settings that differ from the usual ones."""
    return partial(Rig, kubelet)
