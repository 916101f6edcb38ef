"""Typed services of a DRA driver: registration, claims, health."""

from collections.abc import AsyncGenerator
from typing import Final, Protocol

from gpufleet_agent.proto import dra_health_pb2 as health_pb
from gpufleet_agent.proto import dra_pb2 as pb
from gpufleet_agent.proto import plugin_registration_pb2 as registration_pb
from gpufleet_agent.proto.service import Service, service, streaming, unary

PLUGIN_TYPE: Final = "DRAPlugin"
SUPPORTED_SERVICES: Final = ("v1.DRAPlugin", "v1alpha1.DRAResourceHealth")
"""As the kubelet names them: not the names of the gRPC services."""

_REGISTRATION: Final = "pluginregistration.Registration"
_DRA_PLUGIN: Final = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
_HEALTH: Final = "v1alpha1.DRAResourceHealth"


class DraServicer(Protocol):
    """Methods that the kubelet calls."""

    async def get_info(self, request: registration_pb.InfoRequest) -> registration_pb.PluginInfo:
        """Called when the kubelet finds the registration socket."""

    async def notify_registration_status(
        self, request: registration_pb.RegistrationStatus
    ) -> registration_pb.RegistrationStatusResponse:
        """Called with the result of the registration."""

    async def node_prepare_resources(self, request: pb.NodePrepareResourcesRequest) -> pb.NodePrepareResourcesResponse:
        """Called before the containers of a pod start; may take 45 seconds. Repeated calls must have the same result.

        After an error of a claim the kubelet tries again only when it next syncs the pod, a minute or more later.
        """

    async def node_unprepare_resources(
        self, request: pb.NodeUnprepareResourcesRequest
    ) -> pb.NodeUnprepareResourcesResponse:
        """Called after the last container of a claim's last pod has ended. An error keeps the pod terminating."""

    def node_watch_resources(
        self, request: health_pb.NodeWatchResourcesRequest
    ) -> AsyncGenerator[health_pb.NodeWatchResourcesResponse, None]:
        """Yields the health of all devices now and after every change, and often enough to be current."""


def registration_service(servicer: DraServicer) -> Service:
    """Returns the service of the registration socket."""
    return service(
        _REGISTRATION,
        {
            "GetInfo": unary(servicer.get_info, registration_pb.InfoRequest, registration_pb.PluginInfo),
            "NotifyRegistrationStatus": unary(
                servicer.notify_registration_status,
                registration_pb.RegistrationStatus,
                registration_pb.RegistrationStatusResponse,
            ),
        },
    )


def driver_services(servicer: DraServicer) -> tuple[Service, Service]:
    """Returns the services of the driver's socket: claims and health."""
    claims = service(
        _DRA_PLUGIN,
        {
            "NodePrepareResources": unary(
                servicer.node_prepare_resources, pb.NodePrepareResourcesRequest, pb.NodePrepareResourcesResponse
            ),
            "NodeUnprepareResources": unary(
                servicer.node_unprepare_resources, pb.NodeUnprepareResourcesRequest, pb.NodeUnprepareResourcesResponse
            ),
        },
    )
    health = service(
        _HEALTH,
        {
            "NodeWatchResources": streaming(
                servicer.node_watch_resources,
                health_pb.NodeWatchResourcesRequest,
                health_pb.NodeWatchResourcesResponse,
            ),
        },
    )
    return claims, health
