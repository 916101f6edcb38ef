"""The whole agent in one process: fake hardware, a fake object, and the scripted kubelet over real sockets."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from gpufleet_agent.agent import Agent
from gpufleet_agent.devices.base import DeviceInfo, HardwareUnavailableError, LibraryMismatchError, Reading, SlowReading
from gpufleet_agent.kube.model import Assignment, PodEvent, TelemetryObject
from gpufleet_agent.main import serve
from gpufleet_agent.parts import PartError
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.resources import MigStrategy
from gpufleet_agent.settings import Settings
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE


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
        return tuple(DeviceInfo(f"GPU-{index}", index, "NVIDIA H100", memory_total_mib=80_000) for index in range(4))

    def read(self, uuid: str) -> Reading:
        return Reading(uuid=uuid, memory_total_mib=80_000, memory_used_mib=500, utilization_percent=3)

    def read_slow(self, uuid: str) -> SlowReading:
        return SlowReading(uuid=uuid, process_count=0)


class FakeApi:
    """The object in the cluster with a live watch."""

    def __init__(self) -> None:
        self.object = TelemetryObject("uid-node", 1, 1)
        self.statuses: list[Mapping[str, Any]] = []
        self.events: list[PodEvent] = []
        self.closed = False
        self._news = asyncio.Condition()

    async def reserve(self, *assignments: Assignment) -> None:
        await self._write(self.object.generation + 1, assignments)

    async def get(self) -> TelemetryObject:
        return self.object

    async def ensure(self) -> TelemetryObject:
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
    def __init__(self, kubelet: Any, **settings: Any) -> None:
        self.kubelet = kubelet
        self.hardware = FakeHardware()
        self.api = FakeApi()
        usual: dict[str, Any] = {
            "node_name": "node-1",
            "sample_seconds": 0.05,
            "device_plugin_dir": kubelet.device_plugins,
            "pod_resources_socket": kubelet.pod_resources,
            "listen_host": "127.0.0.1",
            "listen_port": 0,
        }
        self.settings = Settings(**{**usual, **settings})

    def make(self) -> Agent:
        return Agent(self.settings, self.hardware, self.api, random.Random(1))  # noqa: S311 - jitter


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Agent]:
    agent = rig.make()
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def fetch(agent: Agent, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.http_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


def held_by(status: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    return {device["uuid"]: device["allocatedTo"] for device in status["devices"] if "allocatedTo" in device}


def sockets(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_road_from_sample_to_confirmation(kubelet: Any, assignment: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet, running(rig) as agent:
            await kubelet.until(kubelet.serving)
            assert kubelet.plugins[RESOURCE].healthy == {"GPU-0", "GPU-1", "GPU-2", "GPU-3"}
            await rig.api.reserve(assignment("train-0", "GPU-3", "GPU-1"))
            await rig.api.until(lambda status: status["assignmentsGeneration"] == 2)
            assert await kubelet.admit("train-0", 2) == {"GPU-1", "GPU-3"}
            assert await kubelet.admit("bare", 1) == {"GPU-0"}
            status = await rig.api.until(lambda status: len(held_by(status)) == 3)
            train = {"namespace": "ml", "pod": "train-0", "container": "main", "podUID": "uid-train-0"}
            bare = {"namespace": "ml", "pod": "bare", "container": "main"}
            assert held_by(status) == {"GPU-0": [bare], "GPU-1": [train], "GPU-3": [train]}
            assert status["summary"]["allocated"] == 3
            assert kubelet.lists_during_allocate == 0
            code, metrics = await fetch(agent, "/metrics")
            assert code == 200
            assert "DCGM_FI_DEV_FB_USED{" in metrics
            assert 'pod="train-0"' in metrics
            assert 'gpufleet_agent_allocations_total{outcome="Managed",reason=""} 1.0' in metrics
            assert "process_resident_memory_bytes" in metrics

    asyncio.run(scenario())


def test_the_road_of_a_share_from_reservation_to_confirmation(kubelet: Any, assignment: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet, running(rig):
            await kubelet.until(lambda: kubelet.serving(SHARED_RESOURCE) and kubelet.serving())
            assert len(kubelet.plugins[SHARED_RESOURCE].healthy) == 4 * 16
            share = {"resource": SHARED_RESOURCE, "memory_mib": 20_000}
            await rig.api.reserve(
                assignment("serve-0", "GPU-1", compute_percent=25, **share), assignment("serve-1", "GPU-1", **share)
            )
            assert await kubelet.admit("serve-0", 1, resource=SHARED_RESOURCE) == {"GPU-1::0"}
            assert await kubelet.admit("serve-1", 1, resource=SHARED_RESOURCE) == {"GPU-1::1"}
            assert await kubelet.admit("bare", 2) == {"GPU-0", "GPU-2"}
            status = await rig.api.until(lambda status: len(held_by(status)) == 3)
            both = [
                {
                    "namespace": "ml",
                    "pod": f"serve-{n}",
                    "container": "main",
                    "podUID": f"uid-serve-{n}",
                    "shared": True,
                }
                | {"memoryMiB": 20_000}
                for n in range(2)
            ]
            both[0]["computePercent"] = 25
            assert held_by(status)["GPU-1"] == both
            assert status["summary"]["allocated"] == 3

    asyncio.run(scenario())


def test_without_a_shared_resource_there_is_one_plugin(kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet, shared_resource="")
        async with kubelet, running(rig):
            await kubelet.until(kubelet.serving)
            assert sockets(kubelet.device_plugins) == ["gpufleet.dev_gpu.sock", "kubelet.sock"]

    asyncio.run(scenario())


def test_refusals_are_counted_and_told_in_events_on_the_pods_that_they_are_about(kubelet: Any, assignment: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet, running(rig) as agent:
            await kubelet.until(kubelet.serving)
            first, second = assignment("first", "GPU-1"), assignment("second", "GPU-1")
            await rig.api.reserve(first, second)
            with pytest.raises(Exception, match=r"TwoClaimants: GPU-1 is assigned to ml/first/main and to ml/second"):
                await kubelet.admit("first", 1)
            await rig.api.reserve(assignment("third", "GPU-0"), assignment("fourth", "GPU-2"))
            kubelet.pods[ContainerKey("ml", "fourth", "main")] = frozenset()
            with pytest.raises(Exception, match="TwoCandidates: 2 containers could be asking"):
                await kubelet.admit("third", 1)
            kubelet.pods.clear()
            assert await kubelet.admit("bare", 2) == {"GPU-1", "GPU-3"}
            await rig.api.reserve(assignment("fifth", "GPU-3"))
            with pytest.raises(Exception, match="DeviceHeld"):
                await kubelet.admit("fifth", 1)
            told = [(event.pod, event.pod_uid, event.reason) for event in await rig.api.until_told(4)]
            assert told == [
                ("first", "uid-first", "TwoClaimants"),
                ("third", "uid-third", "TwoCandidates"),
                ("fourth", "uid-fourth", "TwoCandidates"),
                ("fifth", "uid-fifth", "DeviceHeld"),
            ]
            assert "still held by ml/bare/main" in rig.api.events[-1].message
            metrics = (await fetch(agent, "/metrics"))[1]
            for reason in ("TwoClaimants", "TwoCandidates", "DeviceHeld"):
                assert f'gpufleet_agent_allocations_total{{outcome="Refused",reason="{reason}"}} 1.0' in metrics

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("strategy", "resource", "published"),
    [
        (MigStrategy.SINGLE, RESOURCE, ["GPU-0", "MIG-1", "GPU-2", "GPU-3"]),
        (MigStrategy.MIXED, "gpufleet.dev/mig-1g.10gb", ["GPU-0", "GPU-2", "GPU-3"]),
    ],
)
def test_a_partition_is_a_device_like_any_other_or_one_that_the_operator_never_hears_of(
    strategy: MigStrategy, resource: str, published: list[str], kubelet: Any
) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet, mig_strategy=strategy)
        whole = rig.hardware.devices()
        partition = DeviceInfo("MIG-1", 1, "NVIDIA H100 MIG 1g.10gb", parent="GPU-1", profile="1g.10gb")
        rig.hardware.identify = lambda slot: "MIG-1" if slot == 1 else f"GPU-{slot}"  # type: ignore[method-assign] # GPU-1 is divided
        rig.hardware.devices = lambda: (whole[0], partition, *whole[2:])  # type: ignore[method-assign] # likewise
        async with kubelet, running(rig) as agent:
            await kubelet.until(lambda: kubelet.serving() and kubelet.serving(resource))
            assert "MIG-1" in kubelet.plugins[resource].healthy
            assert ("MIG-1" in kubelet.plugins[RESOURCE].healthy) is (resource == RESOURCE)
            status = await rig.api.until(lambda status: status["devices"])
            assert [device["uuid"] for device in status["devices"]] == published
            assert status["summary"]["devices"] == len(published)
            assert 'UUID="MIG-1"' in (await fetch(agent, "/metrics"))[1]

    asyncio.run(scenario())


def test_a_device_on_which_a_process_is_left_is_not_given_to_a_pod_without_reservation(kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        rig.hardware.read_slow = lambda uuid: SlowReading(uuid=uuid, process_count=int(uuid == "GPU-0"))  # type: ignore[method-assign] # a process is left
        async with kubelet, running(rig):
            await kubelet.until(kubelet.serving)
            await rig.api.until(lambda status: any(device.get("processCount") for device in status["devices"]))
            with pytest.raises(Exception, match=r"4 are healthy, .* but processes are left on 1 of them"):
                await kubelet.admit("greedy", 4)
            assert await kubelet.admit("bare", 3) == {"GPU-1", "GPU-2", "GPU-3"}

    asyncio.run(scenario())


def test_sixteen_pods_at_once_and_none_gets_what_another_was_meant_to_have(kubelet: Any, assignment: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet, running(rig):
            await kubelet.until(kubelet.serving)
            for round_number in range(8):
                pods = [f"train-{round_number}-{index}" for index in range(4)]
                await rig.api.reserve(*(assignment(pod, f"GPU-{3 - index}") for index, pod in enumerate(pods)))
                order = pods[round_number % 4 :] + pods[: round_number % 4]
                given = {pod: await kubelet.admit(pod, 1) for pod in order}
                assert given == {pod: {f"GPU-{3 - index}"} for index, pod in enumerate(pods)}
                kubelet.pods.clear()
            assert kubelet.lists_during_allocate == 0

    asyncio.run(scenario())


def test_a_killed_agents_successor_knows_who_holds_what_and_by_which_reservation(kubelet: Any, assignment: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet:
            async with running(rig):
                await kubelet.until(kubelet.serving)
                await rig.api.reserve(assignment("train-0", "GPU-2"))
                await kubelet.admit("train-0", 1)
            kubelet.plugins.clear()
            rig.api.statuses.clear()
            async with running(rig):
                await kubelet.until(kubelet.serving)
                status = await rig.api.until(held_by)
                assert held_by(status)["GPU-2"][0]["podUID"] == "uid-train-0"
                assert await kubelet.admit("bare", 3) == {"GPU-0", "GPU-1", "GPU-3"}

    asyncio.run(scenario())


def test_probes_tell_ready_from_alive(kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with running(rig) as agent:
            await rig.api.until(lambda status: status["devices"])
            assert await fetch(agent, "/healthz") == (200, "loops: ok\n")
            code, body = await fetch(agent, "/readyz")
            unheard = "not registered with the kubelet: gpufleet.dev/gpu, gpufleet.dev/gpu-shared"
            assert (code, body) == (503, f"device plugin: {unheard}\nstatus: ok\n")
            async with kubelet:
                await kubelet.until(lambda: kubelet.serving() and kubelet.serving(SHARED_RESOURCE))
                assert await fetch(agent, "/readyz") == (200, "device plugin: ok\nstatus: ok\n")

    asyncio.run(scenario())


def test_a_node_without_a_driver_is_calm_ready_and_says_why_it_has_no_devices(kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        rig.hardware.opening = HardwareUnavailableError("no driver")
        async with kubelet, running(rig) as agent:
            status = await rig.api.until(lambda status: True)
            assert status["devices"] == []
            assert status["summary"] == {"devices": 0, "healthy": 0, "allocated": 0}
            assert (await fetch(agent, "/readyz"))[0] == 200
            assert "gpufleet_agent_hardware_available 0.0" in (await fetch(agent, "/metrics"))[1]
            assert sockets(kubelet.device_plugins) == ["kubelet.sock"]
            rig.hardware.opening = None
            await kubelet.until(kubelet.serving)
            await rig.api.until(lambda status: status["summary"]["healthy"] == 4)

    asyncio.run(scenario())


def test_what_was_started_is_released_at_the_end(kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet:
            async with running(rig):
                await kubelet.until(kubelet.serving)
            assert sockets(kubelet.device_plugins) == ["kubelet.sock"]
            assert rig.api.closed
            assert rig.hardware.open_count == 0
            assert asyncio.all_tasks() - kubelet.tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [
        pytest.param(
            lambda rig: setattr(rig.hardware, "opening", LibraryMismatchError("restart me")),
            "sampler: LibraryMismatchError: restart me",
            id="a library that a new process must load anew",
        ),
        pytest.param(
            lambda rig: rig.kubelet.device_plugins.rmdir(), "device plugin: NotADirectoryError", id="no kubelet here"
        ),
        pytest.param(lambda rig: rig.occupy(), "HTTP server: OSError", id="a port that is taken"),
    ],
)
def test_a_part_that_cannot_start_is_named_and_everything_before_it_undone(
    sabotage: Callable[[Any], object], message: str, kubelet: Any
) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        before = asyncio.all_tasks()
        other = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        rig.occupy = lambda: setattr(rig, "settings", Rig(kubelet, listen_port=port).settings)  # type: ignore[attr-defined] # a test's own
        sabotage(rig)
        with pytest.raises(PartError, match=message):
            await rig.make().run()
        other.close()
        await other.wait_closed()
        assert rig.hardware.open_count == 0
        assert asyncio.all_tasks() == before

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_with_status_0(number: signal.Signals, kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet:
            served = asyncio.create_task(serve(rig.make))
            await kubelet.until(kubelet.serving)
            began = asyncio.get_running_loop().time()
            os.kill(os.getpid(), number)
            assert await served == 0
            assert asyncio.get_running_loop().time() - began < 5
            assert sockets(kubelet.device_plugins) == ["kubelet.sock"]

    asyncio.run(scenario())


def test_an_error_while_running_ends_the_agent_with_status_1_and_names_the_part(kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        read = rig.hardware.read

        def mismatch(uuid: str) -> Reading:
            if rig.api.statuses:
                raise LibraryMismatchError("the driver was upgraded")
            return read(uuid)

        rig.hardware.read = mismatch  # type: ignore[method-assign] # the driver is upgraded while the agent runs
        async with kubelet:
            with structlog.testing.capture_logs() as events:
                assert await serve(rig.make) == 1
            (failed,) = [event for event in events if event["event"] == "agent failed"]
            assert failed["error"] == "sampler: LibraryMismatchError: the driver was upgraded"
            assert sockets(kubelet.device_plugins) == ["kubelet.sock"]

    asyncio.run(scenario())


@pytest.mark.parametrize("awaits", range(0, 60, 3))
def test_cancelled_at_whatever_point_of_its_start_nothing_is_left(awaits: int, kubelet: Any) -> None:
    async def scenario() -> None:
        rig = Rig(kubelet)
        async with kubelet:
            task = asyncio.create_task(rig.make().run())
            for _ in range(awaits):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert rig.hardware.open_count == 0
            assert sockets(kubelet.device_plugins) == ["kubelet.sock"]
            assert asyncio.all_tasks() - kubelet.tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
