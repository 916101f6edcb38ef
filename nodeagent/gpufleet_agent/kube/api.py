"""What the agent asks of the apiserver: four calls about one object, and events."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from gpufleet_agent.kube.model import PodEvent, TelemetryObject


class KubeError(Exception):
    """The apiserver did not do it: away, overloaded, or it refused. Worth trying again later."""


class ObjectNotFoundError(KubeError):
    """The apiserver says that the object, or what it belongs to, does not exist. No other 404 does."""


class RejectedError(KubeError):
    """The apiserver won't do it, however often it is asked the same way."""


class TelemetryApi(Protocol):
    """This node's GPUTelemetry object."""

    async def get(self) -> TelemetryObject:
        """Read the newest version.

        Raises:
            NotFoundError: It does not exist.
            KubeError: No answer, or a refusal.
            ObjectFormatError: What came is not a GPUTelemetry.
        """

    async def ensure(self) -> TelemetryObject:
        """Make sure that the object exists and belongs to the Node object. Touches neither spec nor status.

        Raises:
            NotFoundError: There is no Node of that name.
            KubeError: No answer, a refusal, or no such kind in the cluster.
            ObjectFormatError: What came is not a GPUTelemetry.
        """

    async def apply_status(self, status: Mapping[str, Any]) -> TelemetryObject:
        """Make `status` the agent's whole part of the status; returns the object as it then is.

        Raises:
            NotFoundError: The object does not exist.
            KubeError: No answer, or a refusal.
            ObjectFormatError: What came is not a GPUTelemetry; the status was written.
        """

    def watch(self) -> AsyncGenerator[TelemetryObject | None, None]:
        """The current version at once, then every later one; None when the object was deleted.

        Ends after some minutes, so that a connection that has silently died can't leave the agent blind.

        Raises:
            KubeError: No answer, a refusal, or the connection broke.
            ObjectFormatError: What came is not a GPUTelemetry.
        """

    async def close(self) -> None:
        """Close all connections."""


class EventApi(Protocol):
    """Events on pods."""

    async def tell(self, event: PodEvent) -> None:
        """Write an event. The same pod and reason once: what was told already is no error.

        Raises:
            NotFoundError: The pod's namespace is gone.
            RefusedError: Not allowed, or not there: the namespace is on its way out.
            KubeError: No answer.
        """


class KubeApi(TelemetryApi, EventApi, Protocol):
    """Everything that the agent asks for."""
