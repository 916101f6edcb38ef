"""The PodResources client over a real socket."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpufleet_agent.podresources.client import ListingError, PodResourcesClient
from gpufleet_api.names import RESOURCE


def test_it_lists_over_one_connection_and_again_after_a_kubelet_restart(kubelet: Any, listed: Any) -> None:
    async def scenario() -> None:
        client = PodResourcesClient(kubelet.pod_resources)
        for _ in range(2):
            async with kubelet:
                kubelet.pods[listed("train-0").key] = frozenset({"GPU-0", "GPU-1"})
                (container,) = await client.list(5)
                assert container.of(RESOURCE) == {"GPU-0", "GPU-1"}
        await client.close()

    asyncio.run(scenario())


def test_a_kubelet_that_is_away_is_waited_for_within_the_time(kubelet: Any) -> None:
    async def scenario() -> None:
        client = PodResourcesClient(kubelet.pod_resources)
        listing = asyncio.create_task(client.list(10))
        await asyncio.sleep(0)
        async with kubelet:
            assert await listing == ()
        await client.close()

    asyncio.run(scenario())


def test_no_answer_within_the_time_is_an_error_that_names_the_socket(short_path: Path) -> None:
    async def scenario() -> None:
        client = PodResourcesClient(short_path / "absent.sock")
        with pytest.raises(ListingError, match=r"absent\.sock: "):
            await client.list(0.2)
        await client.close()

    asyncio.run(scenario())


def test_the_kubelets_limit_of_calls_is_waited_out(kubelet: Any) -> None:
    async def scenario() -> None:
        answer = kubelet._list
        refusals = [3]

        async def limited(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            if refusals[0]:
                refusals[0] -= 1
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
            return await answer(request, context)

        kubelet._list = limited
        client = PodResourcesClient(kubelet.pod_resources)
        async with kubelet:
            assert await client.list(5) == ()
        assert refusals == [0]
        await client.close()

    asyncio.run(scenario())
