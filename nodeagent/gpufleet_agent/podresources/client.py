"""Client of the kubelet's PodResources API, over one connection that is kept open."""

import asyncio
from pathlib import Path
from typing import Protocol

from grpclib import GRPCError, Status
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from gpufleet_agent.podresources.listing import Listing, parse_listing
from gpufleet_agent.proto import podresources_pb2 as pb
from gpufleet_agent.proto.channel import UnixChannel
from gpufleet_agent.proto.podresources import list_pod_resources


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
        self._channel = UnixChannel(socket)
        self._last: tuple[bytes, Listing] = b"", ()
        """The last response, encoded and decoded. Most responses equal the previous one."""

    async def list(self, timeout_seconds: float) -> Listing:
        """See `Lister.list`. Retries within the timeout, because the kubelet limits the calls of all its clients.

        A response that equals the last one is the same object.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception(_is_transient), wait=wait_random_exponential(multiplier=0.02, max=0.2)
                ):
                    with attempt:
                        return self._parse(await list_pod_resources(self._channel, timeout_seconds=timeout_seconds))
        except GRPCError as error:
            raise ListingError(f"{self._socket}: {error.status.name}: {error.message}") from error
        except TimeoutError as error:
            raise ListingError(f"{self._socket}: no response within {timeout_seconds:g} s") from error
        raise AssertionError("unreachable: without a stop condition the loop returns or raises")

    async def close(self) -> None:
        self._channel.close()

    def _parse(self, response: bytes) -> Listing:
        if response != self._last[0]:
            self._last = response, parse_listing(pb.ListPodResourcesResponse.FromString(response))
        return self._last[1]


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, GRPCError) and error.status in (Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE)
