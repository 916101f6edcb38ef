"""A device plugin of another vendor, which serves the same GPUs under another resource.

Runs in a pod, from the agent's image: `python3 -c SOURCE RESOURCE UUID...`, see `other_plugin`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc.aio

from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.channel import unix_address, unix_channel
from gpufleet_agent.proto.deviceplugin import (
    HEALTHY,
    KUBELET_SOCKET,
    VERSION,
    Context,
    RegistrationStub,
    device_plugin_handler,
)

DIRECTORY = Path("/var/lib/kubelet/device-plugins")
SOCKET = "other-vendor.sock"


class OtherPlugin:
    """Gives containers whatever devices the kubelet picks."""

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = uuids

    async def get_device_plugin_options(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:
        del request, context
        return pb.DevicePluginOptions()

    async def list_and_watch(self, request: pb.Empty, context: Context) -> AsyncIterator[pb.ListAndWatchResponse]:
        del request, context
        yield pb.ListAndWatchResponse(devices=[pb.Device(ID=uuid, health=HEALTHY) for uuid in self._uuids])
        await asyncio.Event().wait()

    async def get_preferred_allocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        del request, context
        return pb.PreferredAllocationResponse()

    async def allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        del context
        responses = [pb.ContainerAllocateResponse() for _ in request.container_requests]
        return pb.AllocateResponse(container_responses=responses)

    async def pre_start_container(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        del request, context
        return pb.PreStartContainerResponse()


async def serve(resource: str, uuids: Sequence[str]) -> None:
    """Registers with the kubelet and serves until the process is killed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((device_plugin_handler(OtherPlugin(uuids)),))
    (DIRECTORY / SOCKET).unlink(missing_ok=True)
    server.add_insecure_port(unix_address(DIRECTORY / SOCKET))
    await server.start()
    async with unix_channel(DIRECTORY / KUBELET_SOCKET) as channel:
        request = pb.RegisterRequest(version=VERSION, endpoint=SOCKET, resource_name=resource)
        await RegistrationStub(channel).register(request, timeout_seconds=10)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2:]))
