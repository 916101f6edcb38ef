"""Interface to the apiserver: the node's GPUTelemetry object and Lease, events, its ResourceSlices, and claims."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from gpufleet_agent.kube.model import LeaseRenewal, PodEvent, TelemetryObject
from gpufleet_agent.kube.resource_slices import ClaimableDevice, PublishedSlice


class KubeError(Exception):
    """The apiserver did not respond, is overloaded, or rejected the request. Worth retrying later."""


class ObjectNotFoundError(KubeError):
    """The apiserver reports that the object, or its owner or namespace, does not exist. Other 404s do not raise it."""


class RejectedError(KubeError):
    """The apiserver rejects the request, and would reject it again."""


class TelemetryApi(Protocol):
    """This node's GPUTelemetry object."""

    async def get(self) -> TelemetryObject:
        """Reads the latest version.

        Raises:
            ObjectNotFoundError: It does not exist.
            KubeError: No response, or a rejection.
            ObjectFormatError: The response is not a GPUTelemetry.
        """

    async def ensure(self) -> TelemetryObject:
        """Creates the object if it does not exist, owned by the Node. Changes neither spec nor status.

        Raises:
            ObjectNotFoundError: There is no Node of that name.
            KubeError: No response, a rejection, or the CRD is not installed.
            ObjectFormatError: The response is not a GPUTelemetry.
        """

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        """Replaces the agent's part of the status; returns the object after that.

        Raises:
            ObjectNotFoundError: The object does not exist.
            KubeError: No response, or a rejection.
            ObjectFormatError: The response is not a GPUTelemetry; the status was written.
        """

    def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        """Yields the current version, then every later one; None after the object was deleted.

        Ends after some minutes, and after little more than one without a sign of life from the apiserver: a connection
        that was lost without notice cannot leave the agent on an old version.

        Raises:
            KubeError: No response, a rejection, or the connection broke.
            ObjectFormatError: A version is not a GPUTelemetry.
        """

    async def close(self) -> None:
        """Closes all connections."""


class LeaseApi(Protocol):
    """The Lease by which the agent confirms its report."""

    async def renew_lease(self, renewal: LeaseRenewal) -> None:
        """Creates or renews the Lease of this node's agent.

        Raises:
            ObjectNotFoundError: The namespace does not exist.
            KubeError: No response, or a rejection.
        """


class EventApi(Protocol):
    """Events on pods."""

    async def create_event(self, event: PodEvent) -> None:
        """Creates an event. Does nothing if the same event exists already.

        Raises:
            ObjectNotFoundError: The pod's namespace no longer exists.
            RejectedError: Forbidden, or the namespace is being deleted.
            KubeError: No response.
        """


class SliceApi(Protocol):
    """ResourceSlices of this node."""

    async def claimable_devices(self) -> Mapping[ClaimableDevice, frozenset[str]]:
        """Returns the UUIDs of the devices that DRA drivers publish for this node.

        Raises:
            KubeError: No response, a rejection, or the API is not served.
        """


class ClaimApi(Protocol):
    """ResourceClaims."""

    async def get_claim(self, namespace: str, name: str) -> Mapping[str, Any]:
        """Reads a ResourceClaim.

        Raises:
            ObjectNotFoundError: It does not exist.
            KubeError: No response, a rejection, or the API is not served.
        """


class SliceWriter(Protocol):
    """The ResourceSlice of a DRA driver."""

    async def apply_slice(self, name: str, spec: Mapping[str, Any]) -> PublishedSlice:
        """Creates a ResourceSlice or replaces its spec. The slice is owned by the Node, so it goes with it.

        Raises:
            ObjectNotFoundError: There is no Node of that name.
            KubeError: No response, or a rejection.
            ObjectFormatError: The response is not a ResourceSlice; the slice was written.
        """

    def watch_slice(self, name: str) -> AsyncGenerator[PublishedSlice | None, None]:
        """Yields the current version of a ResourceSlice, then every later one; None while there is none.

        Ends and raises as `TelemetryApi.watch` does.
        """


class DraApi(ClaimApi, SliceWriter, Protocol):
    """The objects that a DRA driver reads and writes."""


class KubeApi(TelemetryApi, LeaseApi, EventApi, SliceApi, DraApi, Protocol):
    """All calls of the agent."""
