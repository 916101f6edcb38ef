"""Typed device plugin API: what a plugin serves, and how it registers."""

from collections.abc import AsyncGenerator
from typing import Final, Protocol

from gpufleet_agent.proto import deviceplugin_pb2 as pb
from gpufleet_agent.proto.channel import UnixChannel
from gpufleet_agent.proto.service import Service, service, streaming, unary

VERSION: Final = "v1beta1"
KUBELET_SOCKET: Final = "kubelet.sock"
HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"

_REGISTRATION: Final = "v1beta1.Registration"
_DEVICE_PLUGIN: Final = "v1beta1.DevicePlugin"


class DevicePluginServicer(Protocol):
    """Methods that the kubelet calls."""

    async def get_device_plugin_options(self, request: pb.Empty) -> pb.DevicePluginOptions:
        """Called while the plugin registers."""

    def list_and_watch(self, request: pb.Empty) -> AsyncGenerator[pb.ListAndWatchResponse, None]:
        """Yields the full list now and after every change, while the stream is open."""

    async def get_preferred_allocation(self, request: pb.PreferredAllocationRequest) -> pb.PreferredAllocationResponse:
        """An error fails the pod for good, as in `allocate`."""

    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        """An error fails the pod for good."""

    async def pre_start_container(self, request: pb.PreStartContainerRequest) -> pb.PreStartContainerResponse:
        """Called only if the options request it."""


def device_plugin_service(servicer: DevicePluginServicer) -> Service:
    """Returns a service that a server can serve. A method raises `GRPCError` to send an error."""
    return service(
        _DEVICE_PLUGIN,
        {
            "GetDevicePluginOptions": unary(servicer.get_device_plugin_options, pb.Empty, pb.DevicePluginOptions),
            "ListAndWatch": streaming(servicer.list_and_watch, pb.Empty, pb.ListAndWatchResponse),
            "GetPreferredAllocation": unary(
                servicer.get_preferred_allocation, pb.PreferredAllocationRequest, pb.PreferredAllocationResponse
            ),
            "Allocate": unary(servicer.allocate, pb.AllocateRequest, pb.AllocateResponse),
            "PreStartContainer": unary(
                servicer.pre_start_container, pb.PreStartContainerRequest, pb.PreStartContainerResponse
            ),
        },
    )


async def register(channel: UnixChannel, request: pb.RegisterRequest, *, timeout_seconds: float) -> None:
    """Registers a plugin that already serves: the kubelet connects to it during this call.

    Raises:
        GRPCError: The kubelet is down, rejects the plugin, or cannot reach it.
    """
    await channel.call(f"/{_REGISTRATION}/Register", request, timeout_seconds=timeout_seconds)
