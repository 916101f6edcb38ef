"""Typed PodResources API."""

from typing import Final

import grpc.aio

from gpufleet_agent.proto import podresources_pb2 as pb

_SERVICE: Final = "v1.PodResourcesLister"


class PodResourcesStub:
    """Client of the kubelet's PodResources service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._list: grpc.aio.UnaryUnaryMultiCallable[pb.ListPodResourcesRequest, pb.ListPodResourcesResponse] = (
            channel.unary_unary(
                f"/{_SERVICE}/List",
                request_serializer=pb.ListPodResourcesRequest.SerializeToString,
                response_deserializer=pb.ListPodResourcesResponse.FromString,
            )
        )

    async def list(self, *, timeout_seconds: float) -> pb.ListPodResourcesResponse:
        """Lists every active pod of the node with its containers' devices.

        Raises:
            grpc.aio.AioRpcError: The kubelet is down, or its limit of 100 calls per second is exceeded.
        """
        return await self._list(pb.ListPodResourcesRequest(), timeout=timeout_seconds)
