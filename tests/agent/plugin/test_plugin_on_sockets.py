"""The plugin against a scripted kubelet over real unix sockets."""

from dataclasses import replace

import pytest

from gpufleet_agent.plugin.allocator import PodMatching
from gpufleet_agent.plugin.registration import socket_name
from gpufleet_api.names import RESOURCE
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import assignment
from gpufleet_testing.agent.plugins import running_plugin, serving_plugin

UUIDS = frozenset(f"GPU-{index}" for index in range(8))


async def test_it_registers_and_lists_its_devices_without_topology(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet):
        plugin = kubelet.plugins[RESOURCE]
        assert plugin.healthy == UUIDS
        assert plugin.options.get_preferred_allocation_available
        assert not plugin.options.pre_start_required
        assert not plugin.topology


async def test_a_health_change_reaches_the_kubelet_at_once_in_both_directions(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        plugin = kubelet.plugins[RESOURCE]
        sick = replace(rig.devices[3], healthy=False)
        before = rig.devices
        rig.advertise(*before[:3], sick, *before[4:])
        await kubelet.until(lambda: plugin.unhealthy == {"GPU-3"}, seconds=2)
        rig.advertise(*before)
        await kubelet.until(lambda: plugin.healthy == UUIDS, seconds=2)


async def test_a_managed_pod_gets_its_devices_and_its_share_in_the_environment(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(
            assignment("train-1", "GPU-6", "GPU-2", replica=1, replicas=4, shard_start=25, shard_end=50),
            assignment("serve-0", "GPU-0", "GPU-1"),
        )
        assert await kubelet.admit("train-1", 2) == {"GPU-2", "GPU-6"}
        (key,) = kubelet.pods
        assert kubelet.envs[key] == {
            "NVIDIA_VISIBLE_DEVICES": "GPU-2,GPU-6",
            "GPUFLEET_DEVICES": "GPU-2,GPU-6",
            "GPUFLEET_REPLICA": "1",
            "GPUFLEET_REPLICAS": "4",
            "GPUFLEET_SHARD_START": "25",
            "GPUFLEET_SHARD_END": "50",
        }
        assert await kubelet.admit("serve-0", 2) == {"GPU-0", "GPU-1"}
        assert "GPUFLEET_SHARD_START" not in kubelet.envs[list(kubelet.pods)[1]]
        assert rig.count("gpufleet_agent_allocations_total", outcome="Managed", reason="") == 2
        assert rig.count("gpufleet_agent_reservation_reads_total", outcome="Fresh") == 2


async def test_an_unmanaged_pod_gets_unreserved_devices_and_no_share(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-0", "GPU-2"))
        assert await kubelet.admit("bare", 2) == {"GPU-1", "GPU-3"}
        (env,) = kubelet.envs.values()
        assert env == {"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-3"}
        assert rig.count("gpufleet_agent_allocations_total", outcome="Unmanaged", reason="") == 1


@pytest.mark.parametrize(("matching", "swapped"), [(PodMatching.POD_RESOURCES, False), (PodMatching.FIRST_FIT, True)])
async def test_pods_of_equal_size_get_their_own_devices_by_the_kubelets_list(
    matching: PodMatching, swapped: bool, kubelet: FakeKubelet
) -> None:
    async with serving_plugin(kubelet, matching) as rig:
        older = assignment("older", "GPU-7", decided_at="2026-01-01T00:00:00.000000Z")
        younger = assignment("younger", "GPU-4", decided_at="2026-01-01T00:00:00.000001Z")
        rig.api.reserve(older, younger)
        first, second = await kubelet.admit("younger", 1), await kubelet.admit("older", 1)
        assert ((set(first), set(second)) == ({"GPU-7"}, {"GPU-4"})) is swapped
        assert ((set(first), set(second)) == ({"GPU-4"}, {"GPU-7"})) is not swapped


async def test_allocate_rejects_with_a_reason_and_serves_the_next_pod(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-0"))
        assert await kubelet.prefer(frozenset({"GPU-0"}), 1) == []
        with pytest.raises(
            Exception, match=r"FAILED_PRECONDITION: InsufficientUnreservedDevices: .*1 unreserved devices requested"
        ):
            await kubelet.allocate(frozenset({"GPU-0"}))
        assert (
            rig.count("gpufleet_agent_allocations_total", outcome="Rejected", reason="InsufficientUnreservedDevices")
            == 1
        )
        assert await kubelet.admit("train-0", 1) == {"GPU-0"}


async def test_allocate_without_an_answer_for_other_devices_or_twice_is_rejected(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.api.reserve(assignment("train-0", "GPU-0"))
        with pytest.raises(Exception, match="NoPreferredAllocation"):
            await kubelet.allocate(frozenset({"GPU-0"}))
        assert await kubelet.prefer(UUIDS, 1) == ["GPU-1"]
        with pytest.raises(Exception, match=r"PreferredAllocationIgnored: preferred GPU-1, but Allocate names GPU-2"):
            await kubelet.allocate(frozenset({"GPU-2"}))
        await kubelet.admit("train-0", 1)
        with pytest.raises(Exception, match="NoPreferredAllocation"):
            await kubelet.allocate(frozenset({"GPU-0"}))
        assert len(rig.allocations) == 1


async def test_container_reuses_devices_of_its_init_container(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        assert await kubelet.admit("bare", 2, container="init") == {"GPU-0", "GPU-1"}
        # The device manager reuses them: no GetPreferredAllocation, one Allocate for each of the next containers.
        assert await kubelet.allocate(frozenset({"GPU-1"})) == {"NVIDIA_VISIBLE_DEVICES": "GPU-1"}
        assert await kubelet.allocate(frozenset({"GPU-0", "GPU-1"})) == {"NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-1"}
        with pytest.raises(Exception, match=r"NoPreferredAllocation: .* Allocate of GPU-0, GPU-2"):
            await kubelet.allocate(frozenset({"GPU-0", "GPU-2"}))
        assert [grant.devices for grant in rig.allocations] == [("GPU-0", "GPU-1"), ("GPU-1",), ("GPU-0", "GPU-1")]
        assert await kubelet.admit("other", 1) == {"GPU-2"}
        with pytest.raises(Exception, match="NoPreferredAllocation"):
            await kubelet.allocate(frozenset({"GPU-1"}))


async def test_an_answer_expires_when_allocate_does_not_come(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet) as rig:
        rig.in_flight._expiry_seconds = 0.1
        await kubelet.prefer(UUIDS, 1)
        async with rig.in_flight.idle():
            pass
        with pytest.raises(Exception, match="NoPreferredAllocation"):
            await kubelet.allocate(frozenset({"GPU-0"}))


async def test_plugin_that_no_kubelet_registers_is_exported_as_such(kubelet: FakeKubelet) -> None:
    async with running_plugin(kubelet) as rig:
        labels = {"resource": RESOURCE}
        await rig.server.step()
        assert rig.registry.get_sample_value("gpufleet_agent_registered", labels) == 0
        async with kubelet:
            await kubelet.until(lambda: rig.count("gpufleet_agent_registered", **labels) == 1, seconds=10)


async def test_kubelet_restart_leads_to_registration_within_ten_seconds(kubelet: FakeKubelet) -> None:
    async with running_plugin(kubelet):
        for _ in range(2):
            async with kubelet:
                await kubelet.until(kubelet.serving, seconds=10)


async def test_a_socket_that_vanishes_is_replaced_within_ten_seconds(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet):
        (kubelet.device_plugins / socket_name(RESOURCE)).unlink()
        await kubelet.until(lambda: len(kubelet.registrations) == 2 and kubelet.serving(), seconds=10)
        assert await kubelet.admit("bare", 1) == {"GPU-0"}


async def test_kubelet_that_starts_during_registration_gets_one_too(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet):
        # The registration that is under way ends well, but by then there is another kubelet's socket.
        def replaced() -> None:
            kubelet.before_register_answer = lambda: None
            socket = kubelet.device_plugins / "kubelet.sock"
            link = kubelet.device_plugins / "renamed.sock"
            socket.rename(link)
            link.rename(socket)

        kubelet.before_register_answer = replaced
        await kubelet.until(lambda: len(kubelet.registrations) == 2 and kubelet.serving(), seconds=10)


async def test_a_kubelet_that_hangs_up_without_cause_is_registered_with_again(kubelet: FakeKubelet) -> None:
    async with serving_plugin(kubelet):
        await kubelet.hang_up()
        await kubelet.until(lambda: len(kubelet.registrations) == 2 and kubelet.serving(), seconds=10)


async def test_a_node_without_devices_has_no_socket_until_one_turns_up(kubelet: FakeKubelet) -> None:
    async with kubelet, running_plugin(kubelet) as rig:
        devices, rig.devices = rig.devices, ()
        await rig.server.step()
        assert [path.name for path in kubelet.device_plugins.iterdir()] == ["kubelet.sock"]
        rig.advertise(*devices)
        await kubelet.until(kubelet.serving, seconds=10)


async def test_the_socket_is_gone_and_the_stream_ended_after_close(kubelet: FakeKubelet) -> None:
    async with kubelet:
        async with running_plugin(kubelet):
            await kubelet.until(kubelet.serving)
            plugin = kubelet.plugins[RESOURCE]
        await kubelet.until(lambda: plugin.stopped, seconds=2)
        assert [path.name for path in kubelet.device_plugins.iterdir()] == ["kubelet.sock"]
