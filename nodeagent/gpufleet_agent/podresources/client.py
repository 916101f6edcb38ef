"""Client of the kubelet's PodResources API, over one connection that is kept open."""

import asyncio
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from gpufleet_agent.podresources.listing import Listing, parse_listing
from gpufleet_agent.proto.channel import unix_channel
from gpufleet_agent.proto.podresources import PodResourcesStub


class ListingError(Exception):
    """The kubelet did not return a list."""


class Lister(Protocol):
    """Source of PodResources lists."""

    async def list(self, timeout_seconds: float) -> Listing:
        """Returns all containers of all active pods.

        Raises:
            ListingError: No response within the timeout.
        """


class PodResourcesClient:
    """`Lister` of the kubelet's PodResources socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = unix_channel(socket)
        self._stub = PodResourcesStub(self._channel)

    async def list(self, timeout_seconds: float) -> Listing:
        """See `Lister.list`. Retries within the timeout, because the kubelet limits the calls of all its clients."""
        try:
            async with asyncio.timeout(timeout_seconds):
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception(_is_transient), wait=wait_random_exponential(multiplier=0.02, max=0.2)
                ):
                    with attempt:
                        return parse_listing(await self._stub.list(timeout_seconds=timeout_seconds))
        except grpc.aio.AioRpcError as error:
            raise ListingError(f"{self._socket}: {error.code().name}: {error.details()}") from error
        except TimeoutError as error:
            raise ListingError(f"{self._socket}: no response within {timeout_seconds:g} s") from error
        raise AssertionError("unreachable: without a stop condition the loop returns or raises")

    async def close(self) -> None:
        await self._channel.close()


def _is_transient(error: BaseException) -> bool:
    transient = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in transient
