"""The whole agent in one process: fake hardware, a fake object, and the scripted kubelet over real sockets."""

import asyncio

import pytest

from gpufleet_agent.devices.base import DeviceInfo, DeviceReadError, HardwareUnavailableError, Reading, SlowReading
from gpufleet_agent.kube.model import TelemetryObject
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.resources import MigStrategy
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.agents import AgentRig
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import AssignmentFields, assignment


async def test_the_road_from_sample_to_confirmation(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet, rig.running() as agent:
        await kubelet.until(kubelet.serving)
        assert kubelet.plugins[RESOURCE].healthy == {"GPU-0", "GPU-1", "GPU-2", "GPU-3"}
        await rig.api.reserve(assignment("train-0", "GPU-3", "GPU-1"))
        await rig.api.until(lambda status: status["assignmentsGeneration"] == 2)
        assert await kubelet.admit("train-0", 2) == {"GPU-1", "GPU-3"}
        assert await kubelet.admit("bare", 1) == {"GPU-0"}
        status = await rig.api.until(lambda status: len(rig.held_by(status)) == 3)
        train = {"namespace": "ml", "pod": "train-0", "container": "main", "podUID": "uid-train-0"}
        bare = {"namespace": "ml", "pod": "bare", "container": "main"}
        assert rig.held_by(status) == {"GPU-0": [bare], "GPU-1": [train], "GPU-3": [train]}
        assert status["summary"]["allocated"] == 3
        assert kubelet.lists_during_allocate == 0
        code, metrics = await rig.fetch(agent, "/metrics")
        assert code == 200
        assert "DCGM_FI_DEV_FB_USED{" in metrics
        assert 'pod="train-0"' in metrics
        assert 'gpufleet_agent_allocations_total{outcome="Managed",reason=""} 1.0' in metrics
        assert "process_resident_memory_bytes" in metrics


async def test_the_road_of_a_share_from_reservation_to_confirmation(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet, rig.running():
        await kubelet.until(lambda: kubelet.serving(SHARED_RESOURCE) and kubelet.serving())
        assert len(kubelet.plugins[SHARED_RESOURCE].healthy) == 4 * 16
        share: AssignmentFields = {"resource": SHARED_RESOURCE, "memory_mib": 20_000}
        part: AssignmentFields = {**share, "compute_percent": 25}
        await rig.api.reserve(assignment("serve-0", "GPU-1", **part), assignment("serve-1", "GPU-1", **share))
        assert await kubelet.admit("serve-0", 1, resource=SHARED_RESOURCE) == {"GPU-1::0"}
        assert await kubelet.admit("serve-1", 1, resource=SHARED_RESOURCE) == {"GPU-1::1"}
        assert await kubelet.admit("bare", 2) == {"GPU-0", "GPU-2"}
        status = await rig.api.until(lambda status: len(rig.held_by(status)) == 3)
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
        assert rig.held_by(status)["GPU-1"] == both
        assert status["summary"]["allocated"] == 3


async def test_without_a_shared_resource_there_is_one_plugin(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet, shared_resource="")
    async with kubelet, rig.running():
        await kubelet.until(kubelet.serving)
        assert rig.sockets() == ["gpufleet.dev_gpu.sock", "kubelet.sock"]


async def test_rejections_are_counted_and_recorded_as_events(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet, rig.running() as agent:
        await kubelet.until(kubelet.serving)
        first, second = assignment("first", "GPU-1"), assignment("second", "GPU-1")
        await rig.api.reserve(first, second)
        with pytest.raises(
            Exception, match="ReservationConflict: GPU-1 reserved for ml/first/main is also reserved for ml/second"
        ):
            await kubelet.admit("first", 1)
        await rig.api.reserve(assignment("third", "GPU-0"), assignment("fourth", "GPU-2"))
        kubelet.pods[ContainerKey("ml", "fourth", "main")] = frozenset()
        with pytest.raises(Exception, match="AmbiguousPod: 2 containers match the request"):
            await kubelet.admit("third", 1)
        kubelet.pods.clear()
        assert await kubelet.admit("bare", 2) == {"GPU-1", "GPU-3"}
        await rig.api.reserve(assignment("fifth", "GPU-3"))
        with pytest.raises(Exception, match="DeviceHeld"):
            await kubelet.admit("fifth", 1)
        reported = [(event.pod, event.pod_uid, event.reason) for event in await rig.api.until_told(4)]
        assert reported == [
            ("first", "uid-first", "ReservationConflict"),
            ("third", "uid-third", "AmbiguousPod"),
            ("fourth", "uid-fourth", "AmbiguousPod"),
            ("fifth", "uid-fifth", "DeviceHeld"),
        ]
        assert "still held by ml/bare/main" in rig.api.events[-1].message
        metrics = (await rig.fetch(agent, "/metrics"))[1]
        for reason in ("ReservationConflict", "AmbiguousPod", "DeviceHeld"):
            assert f'gpufleet_agent_allocations_total{{outcome="Rejected",reason="{reason}"}} 1.0' in metrics


async def test_partition_of_unknown_profile_is_not_a_whole_gpu(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet, mig_strategy=MigStrategy.MIXED)
    rig.hardware.divide(DeviceInfo("MIG-1", 1, "unknown", parent="GPU-1"))
    async with kubelet, rig.running():
        await kubelet.until(kubelet.serving)
        assert kubelet.plugins[RESOURCE].healthy == {"GPU-0", "GPU-2", "GPU-3"}
        status = await rig.api.until(lambda status: status["devices"])
        assert [device["uuid"] for device in status["devices"]] == ["GPU-0", "GPU-2", "GPU-3"]


@pytest.mark.parametrize(
    ("strategy", "resource", "published"),
    [
        (MigStrategy.SINGLE, RESOURCE, ["GPU-0", "MIG-1", "GPU-2", "GPU-3"]),
        (MigStrategy.MIXED, "gpufleet.dev/mig-1g.10gb", ["GPU-0", "GPU-2", "GPU-3"]),
    ],
)
async def test_partition_is_published_by_mig_strategy(
    strategy: MigStrategy, resource: str, published: list[str], kubelet: FakeKubelet
) -> None:
    rig = AgentRig(kubelet, mig_strategy=strategy)
    partition = DeviceInfo("MIG-1", 1, "NVIDIA H100 MIG 1g.10gb", parent="GPU-1", profile="1g.10gb")
    rig.hardware.divide(partition)
    async with kubelet, rig.running() as agent:
        await kubelet.until(lambda: kubelet.serving() and kubelet.serving(resource))
        assert "MIG-1" in kubelet.plugins[resource].healthy
        assert ("MIG-1" in kubelet.plugins[RESOURCE].healthy) is (resource == RESOURCE)
        status = await rig.api.until(lambda status: status["devices"])
        assert [device["uuid"] for device in status["devices"]] == published
        assert status["summary"]["devices"] == len(published)
        assert 'UUID="MIG-1"' in (await rig.fetch(agent, "/metrics"))[1]


async def test_device_with_process_is_not_allocated_without_reservation(
    kubelet: FakeKubelet,
) -> None:
    rig = AgentRig(kubelet)
    rig.hardware.on_read_slow = lambda uuid: SlowReading(uuid=uuid, process_count=int(uuid == "GPU-0"))
    async with kubelet, rig.running():
        await kubelet.until(kubelet.serving)
        await rig.api.until(lambda status: any(device.get("processCount") for device in status["devices"]))
        with pytest.raises(Exception, match="4 unreserved devices requested, 3/4 are available: 1 possibly in use"):
            await kubelet.admit("greedy", 4)
        assert await kubelet.admit("bare", 3) == {"GPU-1", "GPU-2", "GPU-3"}


async def test_device_with_unknown_processes_is_allocated_once_memory_is_idle(
    kubelet: FakeKubelet,
) -> None:
    rig = AgentRig(kubelet)
    used = {"GPU-0": 70_000}

    def read_slow(uuid: str) -> SlowReading:
        raise DeviceReadError(uuid, "compute processes: Unknown Error")

    rig.hardware.on_read_slow = read_slow
    rig.hardware.on_read = lambda uuid: Reading(uuid=uuid, memory_total_mib=80_000, memory_used_mib=used.get(uuid, 500))
    async with kubelet, rig.running():
        await kubelet.until(kubelet.serving)
        with pytest.raises(Exception, match="3/4 are available: 1 possibly in use by processes"):
            await kubelet.admit("greedy", 4)
        with pytest.raises(Exception, match="3/4 are available: 1 possibly in use by processes"):
            await kubelet.admit("greedy-shared", 4, resource=SHARED_RESOURCE)
        used.clear()
        await rig.api.until(lambda status: all(each["memoryUsedMiB"] == 500 for each in status["devices"]))
        assert len(await kubelet.admit("bare", 4)) == 4


async def test_sixteen_pods_at_once_and_none_gets_what_another_was_meant_to_have(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet, rig.running():
        await kubelet.until(kubelet.serving)
        for round_number in range(8):
            pods = [f"train-{round_number}-{index}" for index in range(4)]
            await rig.api.reserve(*(assignment(pod, f"GPU-{3 - index}") for index, pod in enumerate(pods)))
            order = pods[round_number % 4 :] + pods[: round_number % 4]
            given = {pod: await kubelet.admit(pod, 1) for pod in order}
            assert given == {pod: {f"GPU-{3 - index}"} for index, pod in enumerate(pods)}
            kubelet.pods.clear()
        assert kubelet.lists_during_allocate == 0


async def test_restarted_agent_restores_holders_and_reservations(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet:
        async with rig.running():
            await kubelet.until(kubelet.serving)
            await rig.api.reserve(assignment("train-0", "GPU-2"))
            await kubelet.admit("train-0", 1)
        kubelet.plugins.clear()
        rig.api.statuses.clear()
        async with rig.running():
            await kubelet.until(kubelet.serving)
            status = await rig.api.until(rig.held_by)
            assert rig.held_by(status)["GPU-2"][0]["podUID"] == "uid-train-0"
            assert await kubelet.admit("bare", 3) == {"GPU-0", "GPU-1", "GPU-3"}


async def test_probes_tell_ready_from_alive(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with rig.running() as agent:
        await rig.api.ensured.wait()
        assert await rig.fetch(agent, "/healthz") == (200, "loops: ok\n")
        code, body = await rig.fetch(agent, "/readyz")
        unheard = "not registered with the kubelet: gpufleet.dev/gpu, gpufleet.dev/gpu-shared"
        unlisted = "not published yet: no PodResources list received yet"
        assert (code, body) == (503, f"device plugin: {unheard}\nstatus: {unlisted}\n")
        async with kubelet:
            await kubelet.until(lambda: kubelet.serving() and kubelet.serving(SHARED_RESOURCE))
            await rig.api.until(lambda status: status["devices"])
            assert await rig.fetch(agent, "/readyz") == (200, "device plugin: ok\nstatus: ok\n")


@pytest.mark.parametrize("object_seconds", [0, 0.005, 0.02])
async def test_first_status_has_holders_in_any_order_of_reads(kubelet: FakeKubelet, object_seconds: float) -> None:
    rig = AgentRig(kubelet)
    rig.api.object = TelemetryObject("uid-node", 2, 2, (assignment("train-0", "GPU-3"),))
    kubelet.pods[ContainerKey("ml", "train-0", "main")] = frozenset({"GPU-3"})
    rig.api.ensure_seconds = object_seconds
    async with rig.running():
        async with asyncio.TaskGroup() as group:
            group.create_task(rig.api.until(lambda status: status["devices"]))
            await asyncio.sleep(object_seconds)
            await kubelet.start()
        assert all("GPU-3" in rig.held_by(status) for status in rig.api.statuses)
    await kubelet.stop()


async def test_a_kubelet_that_does_not_know_its_pods_yet_frees_no_device(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet, own_pod=("ml", "agent"), heartbeat_seconds=0.3)
    own = ContainerKey("ml", "agent", "main")
    kubelet.pods[own] = frozenset()
    async with rig.running(poll_seconds=0.3) as agent:
        async with kubelet:
            await kubelet.until(kubelet.serving)
            assert await kubelet.admit("bare", 1) == {"GPU-0"}
            await rig.api.until(lambda status: "GPU-0" in rig.held_by(status))
        kubelet.pods.clear()
        async with kubelet:
            await kubelet.until(kubelet.serving)
            # It lists for an allocation, too, as the new kubelet's device table still has what is held.
            assert await kubelet.prefer(frozenset({"GPU-1"}), 1) == ["GPU-1"]
            reported = len(rig.api.statuses)
            await rig.api.until(lambda _: len(rig.api.statuses) >= reported + 2)
            assert all("GPU-0" in rig.held_by(status) for status in rig.api.statuses[reported:])
            kubelet.pods[own] = frozenset()
            assert await kubelet.prefer(frozenset({"GPU-1"}), 1) == ["GPU-1"]
            await rig.api.until(lambda status: not rig.held_by(status))
        assert (await rig.fetch(agent, "/healthz"))[0] == 200


async def test_rejections_without_end_leave_the_agent_alive_and_its_list_fresh(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    async with kubelet, rig.running(poll_seconds=0.1):
        await kubelet.until(kubelet.serving)
        await rig.api.until(lambda status: status["devices"])
        before, rejected = kubelet.lists, 0
        async with asyncio.timeout(20):
            # Beside the lists for the rejected there are polls.
            while rejected < 15 or kubelet.lists - before <= rejected:
                with pytest.raises(Exception, match="InsufficientUnreserved"):
                    await kubelet.admit("greedy", 5)
                rejected += 1
                await asyncio.sleep(0.03)


async def test_node_without_driver_is_ready_and_reports_no_devices(kubelet: FakeKubelet) -> None:
    rig = AgentRig(kubelet)
    rig.hardware.opening = HardwareUnavailableError("no driver")
    async with kubelet, rig.running() as agent:
        status = await rig.api.until(lambda status: True)
        assert status["devices"] == []
        assert status["summary"] == {"state": "NoDriver", "devices": 0, "healthy": 0, "allocated": 0, "free": 0}
        assert (await rig.fetch(agent, "/readyz"))[0] == 200
        assert "gpufleet_agent_hardware_available 0.0" in (await rig.fetch(agent, "/metrics"))[1]
        assert rig.sockets() == ["kubelet.sock"]
        rig.hardware.opening = None
        await kubelet.until(kubelet.serving)
        await rig.api.until(lambda status: status["summary"]["healthy"] == 4)


async def test_node_whose_driver_reports_no_version_serves_its_devices(
    kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = AgentRig(kubelet)
    monkeypatch.setattr(rig.hardware, "driver_version", lambda: None)
    async with kubelet, rig.running():
        await kubelet.until(kubelet.serving)
        status = await rig.api.until(lambda status: status["summary"]["healthy"] == 4)
    assert status["summary"]["state"] == "Ready"
    assert "driverVersion" not in status
