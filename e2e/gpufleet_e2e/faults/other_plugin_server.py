"""A device plugin of another vendor, which serves the same GPUs under another resource.

Runs in a pod, from the agent's image: `python3 -c SOURCE RESOURCE UUID...`, see `other_plugin`.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.channel import UnixChannel
from gpufleet_agent.proto.deviceplugin import (
    HEALTHY,
    KUBELET_SOCKET,
    VERSION,
    device_plugin_service,
    register,
)
from gpufleet_agent.proto.socket_server import SocketServer

DIRECTORY = Path("/var/lib/kubelet/device-plugins")
SOCKET = "other-vendor.sock"


class OtherPlugin:
    """Gives containers whatever devices the kubelet picks."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = uuids

    async def get_device_plugin_options(self, request: pb.Empty) -> pb.DevicePluginOptions:
        del request
        return pb.DevicePluginOptions()

    async def list_and_watch(self, request: pb.Empty) -> AsyncGenerator[pb.ListAndWatchResponse, None]:
        del request
        yield pb.ListAndWatchResponse(devices=[pb.Device(ID=uuid, health=HEALTHY) for uuid in self._uuids])
        await asyncio.Event().wait()

    async def get_preferred_allocation(self, request: pb.PreferredAllocationRequest) -> pb.PreferredAllocationResponse:
        del request
        return pb.PreferredAllocationResponse()

    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        responses = [pb.ContainerAllocateResponse() for _ in request.container_requests]
        return pb.AllocateResponse(container_responses=responses)

    async def pre_start_container(self, request: pb.PreStartContainerRequest) -> pb.PreStartContainerResponse:
        del request
        return pb.PreStartContainerResponse()


async def serve(resource: str, uuids: Sequence[str]) -> None:
    """Registers with the kubelet and serves until the process is killed."""
    await SocketServer(DIRECTORY / SOCKET, [device_plugin_service(OtherPlugin(uuids))]).start()
    with UnixChannel(DIRECTORY / KUBELET_SOCKET) as channel:
        request = pb.RegisterRequest(version=VERSION, endpoint=SOCKET, resource_name=resource)
        await register(channel, request, timeout_seconds=10)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2:]))
