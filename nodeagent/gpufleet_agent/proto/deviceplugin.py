"""Typed device plugin API: what a plugin serves, and how it registers."""

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol, TypeAlias

import grpc
import grpc.aio

from gpufleet_agent.proto import deviceplugin_pb2 as pb

VERSION: Final = "v1beta1"
KUBELET_SOCKET: Final = "kubelet.sock"
HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"

_REGISTRATION: Final = "v1beta1.Registration"
_DEVICE_PLUGIN: Final = "v1beta1.DevicePlugin"

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class DevicePluginServicer(Protocol):
    """Methods that the kubelet calls."""

    async def get_device_plugin_options(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:
        """Called while the plugin registers."""

    def list_and_watch(self, request: pb.Empty, context: Context) -> AsyncIterator[pb.ListAndWatchResponse]:
        """Yields the full list now and after every change, while the stream is open."""

    async def get_preferred_allocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        """An error fails the pod for good, as in `allocate`."""

    async def allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        """An error fails the pod for good."""

    async def pre_start_container(
        self, request: pb.PreStartContainerRequest, context: Context
    ) -> pb.PreStartContainerResponse:
        """Called only if the options request it."""


def device_plugin_handler(servicer: DevicePluginServicer) -> grpc.GenericRpcHandler:
    """Returns a handler that a gRPC server can serve."""
    return grpc.method_handlers_generic_handler(
        _DEVICE_PLUGIN,
        {
            "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(
                servicer.get_device_plugin_options, pb.Empty.FromString, pb.DevicePluginOptions.SerializeToString
            ),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                servicer.list_and_watch, pb.Empty.FromString, pb.ListAndWatchResponse.SerializeToString
            ),
            "GetPreferredAllocation": grpc.unary_unary_rpc_method_handler(
                servicer.get_preferred_allocation,
                pb.PreferredAllocationRequest.FromString,
                pb.PreferredAllocationResponse.SerializeToString,
            ),
            "Allocate": grpc.unary_unary_rpc_method_handler(
                servicer.allocate, pb.AllocateRequest.FromString, pb.AllocateResponse.SerializeToString
            ),
            "PreStartContainer": grpc.unary_unary_rpc_method_handler(
                servicer.pre_start_container,
                pb.PreStartContainerRequest.FromString,
                pb.PreStartContainerResponse.SerializeToString,
            ),
        },
    )


class RegistrationStub:
    """Client of the kubelet's registration service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._register: grpc.aio.UnaryUnaryMultiCallable[pb.RegisterRequest, pb.Empty] = channel.unary_unary(
            f"/{_REGISTRATION}/Register",
            request_serializer=pb.RegisterRequest.SerializeToString,
            response_deserializer=pb.Empty.FromString,
        )

    async def register(self, request: pb.RegisterRequest, *, timeout_seconds: float) -> None:
        """Registers a plugin that already serves: the kubelet dials it back during this call.

        Raises:
            grpc.aio.AioRpcError: The kubelet is down, rejects the plugin, or cannot reach it.
        """
        await self._register(request, timeout=timeout_seconds)
