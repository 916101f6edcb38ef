"""Asks the kubelet who holds what, over one connection that is kept."""

import asyncio
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from gpufleet_agent.podresources.listing import Listing, parse_listing
from gpufleet_agent.proto.channel import unix_channel
from gpufleet_agent.proto.podresources import PodResourcesStub

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As the kubelet's own clients allow: a node of many pods lists more than gRPC's default of 4 MiB."""


class ListingError(Exception):
    """The kubelet did not say who holds what."""


class Lister(Protocol):
    """Where a listing comes from."""

    async def list(self, timeout_seconds: float) -> Listing:
        """All containers of all active pods.

        Raises:
            ListingError: No answer within the time.
        """


class PodResourcesClient:
    """The kubelet's PodResources socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = unix_channel(socket)
        self._stub = PodResourcesStub(self._channel)

    async def list(self, timeout_seconds: float) -> Listing:
        """See `Lister.list`. Tries again within the time, for the kubelet limits the calls of all its clients."""
        try:
            async with asyncio.timeout(timeout_seconds):
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception(_passes), wait=wait_random_exponential(multiplier=0.02, max=0.2)
                ):
                    with attempt:
                        return parse_listing(await self._stub.list(timeout_seconds=timeout_seconds))
        except grpc.aio.AioRpcError as error:
            raise ListingError(f"{self._socket}: {error.code().name}: {error.details()}") from error
        except TimeoutError as error:
            raise ListingError(f"{self._socket}: no answer within {timeout_seconds:g} s") from error
        raise AssertionError("unreachable: without a stop condition the loop returns or raises")

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _passes(error: BaseException) -> bool:
    passing = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in passing
