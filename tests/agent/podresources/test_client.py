"""The PodResources client over a real socket."""

import asyncio
import socket
from pathlib import Path

import pytest

from gpufleet_agent.podresources.client import ListingError, PodResourcesClient
from gpufleet_api.names import RESOURCE
from gpufleet_testing.agent.kubelet import FakeKubelet
from gpufleet_testing.agent.objects import listed


async def test_it_lists_over_one_connection_and_again_after_a_kubelet_restart(kubelet: FakeKubelet) -> None:
    client = PodResourcesClient(kubelet.pod_resources)
    for _ in range(2):
        async with kubelet:
            kubelet.pods[listed("train-0").key] = frozenset({"GPU-0", "GPU-1"})
            (container,) = await client.list(5)
            assert container.of(RESOURCE) == {"GPU-0", "GPU-1"}
    await client.close()


async def test_a_kubelet_that_is_away_is_waited_for_within_the_time(kubelet: FakeKubelet) -> None:
    client = PodResourcesClient(kubelet.pod_resources)
    listing = asyncio.create_task(client.list(10))
    await asyncio.sleep(0)
    async with kubelet:
        assert await listing == ()
    await client.close()


async def test_no_answer_within_the_time_is_an_error_that_names_the_socket(short_path: Path) -> None:
    client = PodResourcesClient(short_path / "absent.sock")
    with pytest.raises(ListingError, match=r"absent\.sock: "):
        await client.list(0.2)
    await client.close()


async def test_the_kubelets_limit_of_calls_is_waited_out(kubelet: FakeKubelet) -> None:
    kubelet.list_rejections = 3
    client = PodResourcesClient(kubelet.pod_resources)
    async with kubelet:
        assert await client.list(5) == ()
    assert kubelet.list_rejections == 0
    await client.close()


async def test_a_list_of_more_than_4_mib_is_received(kubelet: FakeKubelet) -> None:
    """A connection's window is 4 MiB; the list of a node with many devices and pods may exceed it."""
    device_id = "GPU-" + 5 * 1024 * 1024 * "0"
    kubelet.pods[listed("train-0").key] = frozenset({device_id})
    client = PodResourcesClient(kubelet.pod_resources)
    async with kubelet:
        (container,) = await client.list(10)
    assert [len(received) for received in container.of(RESOURCE)] == [len(device_id)]
    await client.close()


async def test_a_list_that_did_not_change_is_not_decoded_again(kubelet: FakeKubelet) -> None:
    client = PodResourcesClient(kubelet.pod_resources)
    async with kubelet:
        kubelet.pods[listed("train-0").key] = frozenset({"GPU-0"})
        first = await client.list(5)
        assert await client.list(5) is first
        kubelet.pods[listed("train-1").key] = frozenset({"GPU-1"})
        assert len(await client.list(5)) == 2
        del kubelet.pods[listed("train-1").key]
        assert await client.list(5) == first
    await client.close()


async def test_a_kubelet_that_does_not_answer_is_an_error_that_says_so(short_path: Path) -> None:
    path = short_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        client = PodResourcesClient(path)
        with pytest.raises(ListingError, match=r"silent\.sock: (DEADLINE_EXCEEDED: )?no response within 0\.2 s"):
            await client.list(0.2)
        await client.close()
