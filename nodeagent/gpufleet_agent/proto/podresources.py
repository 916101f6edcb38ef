"""PodResources API."""

from typing import Final

from gpufleet_agent.proto import podresources_pb2 as pb
from gpufleet_agent.proto.channel import UnixChannel

_LIST: Final = "/v1.PodResourcesLister/List"
_REQUEST: Final = pb.ListPodResourcesRequest()


async def list_pod_resources(channel: UnixChannel, *, timeout_seconds: float) -> bytes:
    """Lists every active pod of the node with its containers' devices: an encoded `ListPodResourcesResponse`.

    Raises:
        GRPCError: The kubelet is down, or its limit of 100 calls per second is exceeded.
    """
    return await channel.call(_LIST, _REQUEST, timeout_seconds=timeout_seconds)
