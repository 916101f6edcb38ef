"""Typed services of a DRA driver: registration, claims, health."""

from collections.abc import AsyncIterator
from typing import Final, Protocol

import grpc
import grpc.aio

from gpufleet_agent.proto import dra_health_pb2 as health_pb
from gpufleet_agent.proto import dra_pb2 as pb
from gpufleet_agent.proto import plugin_registration_pb2 as registration_pb
from gpufleet_agent.proto.deviceplugin import Context

PLUGIN_TYPE: Final = "DRAPlugin"
SUPPORTED_SERVICES: Final = ("v1.DRAPlugin", "v1alpha1.DRAResourceHealth")
"""As the kubelet names them: not the names of the gRPC services."""

_REGISTRATION: Final = "pluginregistration.Registration"
_DRA_PLUGIN: Final = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
_HEALTH: Final = "v1alpha1.DRAResourceHealth"


class DraServicer(Protocol):
    """Methods that the kubelet calls."""

    async def get_info(self, request: registration_pb.InfoRequest, context: Context) -> registration_pb.PluginInfo:
        """Called when the kubelet finds the registration socket."""

    async def notify_registration_status(
        self, request: registration_pb.RegistrationStatus, context: Context
    ) -> registration_pb.RegistrationStatusResponse:
        """Called with the result of the registration."""

    async def node_prepare_resources(
        self, request: pb.NodePrepareResourcesRequest, context: Context
    ) -> pb.NodePrepareResourcesResponse:
        """Called before the containers of a pod start; may take 45 seconds. Repeated calls must have the same result.

        After an error of a claim the kubelet tries again only when it next syncs the pod, a minute or more later.
        """

    async def node_unprepare_resources(
        self, request: pb.NodeUnprepareResourcesRequest, context: Context
    ) -> pb.NodeUnprepareResourcesResponse:
        """Called after the last container of a claim's last pod has ended. An error keeps the pod terminating."""

    def node_watch_resources(
        self, request: health_pb.NodeWatchResourcesRequest, context: Context
    ) -> AsyncIterator[health_pb.NodeWatchResourcesResponse]:
        """Yields the health of all devices now and after every change, and often enough to be current."""


def registration_handler(servicer: DraServicer) -> grpc.GenericRpcHandler:
    """Returns the handler of the registration socket."""
    return grpc.method_handlers_generic_handler(
        _REGISTRATION,
        {
            "GetInfo": grpc.unary_unary_rpc_method_handler(
                servicer.get_info,
                registration_pb.InfoRequest.FromString,
                registration_pb.PluginInfo.SerializeToString,
            ),
            "NotifyRegistrationStatus": grpc.unary_unary_rpc_method_handler(
                servicer.notify_registration_status,
                registration_pb.RegistrationStatus.FromString,
                registration_pb.RegistrationStatusResponse.SerializeToString,
            ),
        },
    )


def driver_handlers(servicer: DraServicer) -> tuple[grpc.GenericRpcHandler, grpc.GenericRpcHandler]:
    """Returns the handlers of the driver's socket: claims and health."""
    claims = grpc.method_handlers_generic_handler(
        _DRA_PLUGIN,
        {
            "NodePrepareResources": grpc.unary_unary_rpc_method_handler(
                servicer.node_prepare_resources,
                pb.NodePrepareResourcesRequest.FromString,
                pb.NodePrepareResourcesResponse.SerializeToString,
            ),
            "NodeUnprepareResources": grpc.unary_unary_rpc_method_handler(
                servicer.node_unprepare_resources,
                pb.NodeUnprepareResourcesRequest.FromString,
                pb.NodeUnprepareResourcesResponse.SerializeToString,
            ),
        },
    )
    health = grpc.method_handlers_generic_handler(
        _HEALTH,
        {
            "NodeWatchResources": grpc.unary_stream_rpc_method_handler(
                servicer.node_watch_resources,
                health_pb.NodeWatchResourcesRequest.FromString,
                health_pb.NodeWatchResourcesResponse.SerializeToString,
            ),
        },
    )
    return claims, health
