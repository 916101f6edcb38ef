"""Deaths and races at the worst moment: of the agent between the kubelet's calls, of sockets, of the apiserver."""

import asyncio
import socket
from pathlib import Path

import pytest

from gpufleet_agent.plugin.registration import socket_name
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import AssignmentFields, assignment
from gpufleet_testing.agent.plugins import running_plugin, serving_plugin

UUIDS = frozenset(f"GPU-{index}" for index in range(8))


async def served_again(kubelet: FakeKubelet, registrations: int) -> None:
    """Until the kubelet has heard from a plugin that registered after the first `registrations`."""
    await kubelet.until(lambda: len(kubelet.registrations) > registrations and kubelet.serving())


async def test_agent_killed_before_allocate_rejects_the_pod_and_serves_the_next(
    kubelet: FakeKubelet,
) -> None:
    async with kubelet:
        train = assignment("train-0", "GPU-5")
        async with running_plugin(kubelet) as first:
            await kubelet.until(kubelet.serving)
            first.api.reserve(train)
            kubelet.pods[ContainerKey("ml", "train-0", "main")] = frozenset()
            assert await kubelet.prefer(UUIDS, 1) == ["GPU-5"]
        with pytest.raises(Exception, match="UNAVAILABLE"):
            await kubelet.allocate(frozenset({"GPU-5"}))
        async with running_plugin(kubelet) as second:
            second.api.reserve(train)
            await served_again(kubelet, 1)
            with pytest.raises(Exception, match="NoPreferredAllocation"):
                await kubelet.allocate(frozenset({"GPU-5"}))
            assert second.allocations == []
            # The kubelet has failed the pod; the operator makes another, with another name.
            kubelet.pods.clear()
            second.api.reserve(train, assignment("train-1", "GPU-6"))
            assert await kubelet.admit("train-1", 1) == {"GPU-6"}


async def test_killed_between_allocate_and_start_the_device_stays_the_pods(kubelet: FakeKubelet) -> None:
    async with kubelet:
        async with running_plugin(kubelet) as first:
            await kubelet.until(kubelet.serving)
            first.api.reserve(assignment("train-0", "GPU-0"))
            assert await kubelet.admit("train-0", 1) == {"GPU-0"}
        async with running_plugin(kubelet) as second:
            # The reservation is gone, as when a workload is deleted meanwhile; the kubelet's list is not.
            second.api.reserve(assignment("train-1", "GPU-0"))
            await served_again(kubelet, 1)
            with pytest.raises(Exception, match=r"DeviceHeld: GPU-0 reserved for ml/train-1/main .* ml/train-0/main"):
                await kubelet.admit("train-1", 1)
            second.api.reserve()
            assert await kubelet.admit("bare", 1) == {"GPU-1"}


async def test_killed_between_allocate_and_start_a_share_stays_the_pods_too(kubelet: FakeKubelet) -> None:
    async with kubelet:
        share: AssignmentFields = {"resource": SHARED_RESOURCE, "memory_mib": 1000}
        async with running_plugin(kubelet, shared=True) as first:
            await kubelet.until(lambda: kubelet.serving() and kubelet.serving(SHARED_RESOURCE))
            first.api.reserve(assignment("serve-0", "GPU-0", **share))
            assert await kubelet.admit("serve-0", 1, resource=SHARED_RESOURCE) == {"GPU-0::0"}
        kubelet.plugins.clear()
        async with running_plugin(kubelet, shared=True) as second:
            second.api.reserve(assignment("serve-1", "GPU-0", **share), assignment("train-0", "GPU-0"))
            await kubelet.until(lambda: kubelet.serving() and kubelet.serving(SHARED_RESOURCE))
            with pytest.raises(Exception, match="ReservationConflict"):
                await kubelet.admit("train-0", 1)
            second.api.reserve(assignment("serve-1", "GPU-0", **share))
            assert await kubelet.admit("serve-1", 1, resource=SHARED_RESOURCE) == {"GPU-0::1"}


async def test_the_socket_that_a_killed_agent_left_is_no_obstacle(kubelet: FakeKubelet) -> None:
    left = kubelet.device_plugins / socket_name(RESOURCE)

    async with kubelet:
        bind_and_leave(left)
        async with running_plugin(kubelet):
            await kubelet.until(kubelet.serving)
            assert await kubelet.admit("bare", 1) == {"GPU-0"}


async def test_a_strangers_socket_in_our_place_is_replaced(kubelet: FakeKubelet) -> None:
    ours = kubelet.device_plugins / socket_name(RESOURCE)

    async with serving_plugin(kubelet):
        ours.unlink()
        bind_and_leave(ours)
        await served_again(kubelet, 1)
        assert await kubelet.admit("bare", 1) == {"GPU-0"}


async def test_a_kubelet_whose_socket_comes_late_or_is_no_socket_is_waited_for(kubelet: FakeKubelet) -> None:
    place = kubelet.device_plugins / "kubelet.sock"

    async with running_plugin(kubelet) as rig:
        place.write_text("not yet")
        await asyncio.wait_for(rig.ready(), 20)
        await rig.server.step()
        await rig.server.step()
        assert rig.count("gpufleet_agent_registrations_total", resource=RESOURCE, outcome="Failed") == 0
        place.unlink()
        bind_and_leave(place)
        await rig.server.step()
        assert rig.count("gpufleet_agent_registrations_total", resource=RESOURCE, outcome="Failed") >= 1
        async with kubelet:
            await kubelet.until(kubelet.serving)


async def test_all_sockets_gone_at_once_in_the_middle_of_an_allocation(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-3"))
        kubelet.pods[ContainerKey("ml", "train-0", "main")] = frozenset()
        assert await kubelet.prefer(UUIDS, 1) == ["GPU-3"]
        # A kubelet that dies here has admitted no pod; its successor asks again.
        await kubelet.stop()
        await kubelet.start()
        await served_again(kubelet, 1)
        assert await kubelet.admit("train-0", 1) == {"GPU-3"}
        assert [grant.devices for grant in rig.allocations] == [("GPU-3",)]


@pytest.mark.usefixtures("short_patience")
async def test_with_the_apiserver_away_pods_start_from_memory_whole_and_shared(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True) as rig:
        await kubelet.until(lambda: kubelet.serving() and kubelet.serving(SHARED_RESOURCE))
        share: AssignmentFields = {"resource": SHARED_RESOURCE, "memory_mib": 1000}
        rig.api.reserve(assignment("train-0", "GPU-7"), assignment("serve-0", "GPU-6", **share))
        await rig.own.refresh()
        rig.api.away = True
        assert await kubelet.admit("train-0", 1) == {"GPU-7"}
        assert await kubelet.admit("serve-0", 1, resource=SHARED_RESOURCE) == {"GPU-6::0"}
        assert await kubelet.admit("bare", 6) == UUIDS - {"GPU-6", "GPU-7"}
        assert rig.count("gpufleet_agent_reservation_reads_total", outcome="Cached") == 3
        assert rig.rejections == []


def bind_and_leave(path: Path) -> None:
    """A socket file without a listener."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
