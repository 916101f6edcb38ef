"""Both plugins against a scripted kubelet over real unix sockets: slots, and what they mean to whole devices."""

from dataclasses import replace
from typing import Unpack

import pytest

from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.plugin.registration import socket_name
from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import AssignmentFields, assignment
from gpufleet_testing.agent.plugins import running_plugin

SLOTS = 3


def share(pod: str, *devices: str, **fields: Unpack[AssignmentFields]) -> Assignment:
    usual: AssignmentFields = {"resource": SHARED_RESOURCE, "memory_mib": 4000, **fields}
    return assignment(pod, *devices, **usual)


async def both(kubelet: FakeKubelet) -> None:
    await kubelet.until(lambda: kubelet.serving(RESOURCE) and kubelet.serving(SHARED_RESOURCE))


async def test_slots_are_listed_with_their_devices_health_and_without_topology(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True) as rig:
        await both(kubelet)
        plugin = kubelet.plugins[SHARED_RESOURCE]
        assert plugin.healthy == {f"GPU-{index}::{slot}" for index in range(8) for slot in range(SLOTS)}
        assert kubelet.plugins[RESOURCE].healthy == {f"GPU-{index}" for index in range(8)}
        assert not plugin.topology
        rig.advertise(replace(rig.devices[0], healthy=False), *rig.devices[1:])
        await kubelet.until(lambda: plugin.unhealthy == {f"GPU-0::{slot}" for slot in range(SLOTS)}, seconds=2)
        await kubelet.until(lambda: kubelet.plugins[RESOURCE].unhealthy == {"GPU-0"}, seconds=2)


async def test_container_of_a_share_gets_uuids_and_promises(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True) as rig:
        await both(kubelet)
        rig.api.reserve(
            share("serve-0", "GPU-6", "GPU-2", compute_percent=30, replicas=2),
            share("serve-1", "GPU-2", replica=1, replicas=2),
        )
        assert await kubelet.admit("serve-0", 2, resource=SHARED_RESOURCE) == {"GPU-2::0", "GPU-6::0"}
        assert await kubelet.admit("serve-1", 1, resource=SHARED_RESOURCE) == {"GPU-2::1"}
        first, second = kubelet.envs.values()
        assert first == {
            "NVIDIA_VISIBLE_DEVICES": "GPU-2,GPU-6",
            "GPUFLEET_DEVICES": "GPU-2,GPU-6",
            "GPUFLEET_REPLICA": "0",
            "GPUFLEET_REPLICAS": "2",
            "GPUFLEET_MEMORY_MIB": "4000",
            "GPUFLEET_COMPUTE_PERCENT": "30",
        }
        assert second["NVIDIA_VISIBLE_DEVICES"] == "GPU-2"
        assert second["GPUFLEET_MEMORY_MIB"] == "4000"
        assert "GPUFLEET_COMPUTE_PERCENT" not in second


async def test_shared_device_is_not_allocated_whole_nor_vice_versa(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True) as rig:
        await both(kubelet)
        rig.api.reserve(share("serve-0", "GPU-0"), assignment("train-0", "GPU-1"))
        await kubelet.admit("serve-0", 1, resource=SHARED_RESOURCE)
        await kubelet.admit("train-0", 1)
        # The ledger forgets both, as a bug or a hand might have it; the kubelet's list doesn't.
        rig.api.reserve(assignment("train-1", "GPU-0"), share("serve-1", "GPU-1"))
        with pytest.raises(Exception, match=r"DeviceHeld: GPU-0 reserved for ml/train-1/main .* ml/serve-0/main"):
            await kubelet.admit("train-1", 1)
        with pytest.raises(Exception, match=r"DeviceHeld: GPU-1 reserved for ml/serve-1/main .* ml/train-0/main"):
            await kubelet.admit("serve-1", 1, resource=SHARED_RESOURCE)
        assert rig.count("gpufleet_agent_allocations_total", outcome="Rejected", reason="DeviceHeld") == 2


async def test_unmanaged_pods_of_both_kinds_keep_out_of_each_others_way(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True) as rig:
        await both(kubelet)
        rig.api.reserve(share("serve-0", "GPU-3"), assignment("train-0", "GPU-0"))
        slots = [await kubelet.admit(f"bare-{n}", 1, resource=SHARED_RESOURCE) for n in range(SLOTS)]
        assert slots == [{"GPU-3::0"}, {"GPU-3::1"}, {"GPU-3::2"}], "shared devices first"
        assert await kubelet.admit("other", 1, resource=SHARED_RESOURCE) == {"GPU-1::0"}, "GPU-3 is full"
        assert await kubelet.admit("bare", 5) == {"GPU-2", "GPU-4", "GPU-5", "GPU-6", "GPU-7"}
        with pytest.raises(Exception, match=r"InsufficientUnreservedDevices: 1 .* requested, 0/3 are available"):
            await kubelet.admit("greedy", 1)
        assert await kubelet.admit("late", 1, resource=SHARED_RESOURCE) == {"GPU-1::1"}


async def test_the_answer_of_one_resource_is_not_taken_by_the_other(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True):
        await both(kubelet)
        everything = kubelet.plugins[SHARED_RESOURCE].healthy
        assert await kubelet.prefer(everything, 1, resource=SHARED_RESOURCE) == ["GPU-0::0"]
        with pytest.raises(Exception, match=r"PreferredAllocationIgnored: preferred GPU-0::0, but .* names GPU-0"):
            await kubelet.allocate(frozenset({"GPU-0"}))
        with pytest.raises(Exception, match="NoPreferredAllocation"):
            await kubelet.allocate(frozenset({"GPU-0::0"}), SHARED_RESOURCE)


async def test_each_socket_is_replaced_by_itself_and_registered_by_itself(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet, shared=True) as rig:
        await both(kubelet)
        (kubelet.device_plugins / socket_name(SHARED_RESOURCE)).unlink()
        await kubelet.until(lambda: kubelet.registrations.count(SHARED_RESOURCE) == 2, seconds=10)
        await both(kubelet)
        assert kubelet.registrations.count(RESOURCE) == 1
        registered = {"resource": SHARED_RESOURCE, "outcome": "Registered"}
        assert rig.count("gpufleet_agent_registrations_total", **registered) == 2
        assert rig.count("gpufleet_agent_registered", resource=RESOURCE) == 1
        assert await kubelet.admit("bare", 1, resource=SHARED_RESOURCE) == {"GPU-0::0"}


async def test_a_kubelet_restart_brings_both_back(kubelet: FakeKubelet) -> None:
    async with running_plugin(kubelet, shared=True):
        for _ in range(2):
            async with kubelet:
                await both(kubelet)
