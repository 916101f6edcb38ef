"""The rim at which objects come in: one that can't be read is left out, for it must not end the operator for all.

The projections make do with whatever stands below `metadata`, so this is for what can't be made sense of at all. The
cache then keeps what it knew of the object before; what was never readable doesn't exist for the operator.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import structlog

from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.model.lenient_json import as_map, text
from gpufleet_operator.model.objects import BoundPod, Node, Pod, Telemetry, Workload

Json = Mapping[str, Any]
T = TypeVar("T")

MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a document of another form than expected can raise; pydantic's ValidationError is a ValueError."""

_TOLD = 1000

log = structlog.get_logger(__name__)


def _ignore(kind: str) -> None:
    del kind


class Reader:
    """Objects as JSON -> views, None for one that can't be read.

    Args:
        unreadable: called with the kind, once for each version of an object that can't be read.
    """

    def __init__(self, unreadable: Callable[[str], None] = _ignore) -> None:
        self._unreadable = unreadable
        self._told: set[tuple[str, str]] = set()

    def workload(self, body: Json) -> Workload | None:
        """A GPUWorkload."""
        return self._read(decode.workload, body)

    def telemetry(self, body: Json) -> Telemetry | None:
        """A GPUTelemetry."""
        return self._read(decode.telemetry, body)

    def pod(self, body: Json) -> Pod | None:
        """A pod with our label."""
        return self._read(decode_pod.pod, body)

    def node(self, body: Json) -> Node | None:
        """A v1.Node."""
        return self._read(decode.node, body)

    def bound_pod(self, body: Json) -> BoundPod | None:
        """Somebody else's pod that has a node."""
        return self._read(decode.bound_pod, body)

    def _read(self, projection: Callable[[Json], T], body: Json) -> T | None:
        try:
            return projection(body)
        except MALFORMED:
            meta = as_map(as_map(body).get("metadata"))
            version = (text(meta.get("uid")), text(meta.get("resourceVersion")))
            if version not in self._told:  # it comes again with every list
                if len(self._told) >= _TOLD:
                    self._told.clear()
                self._told.add(version)
                self._unreadable(projection.__name__)
                log.exception(
                    "an object can't be read, it is left out",
                    kind=projection.__name__,
                    namespace=meta.get("namespace"),
                    name=meta.get("name"),
                    resource_version=meta.get("resourceVersion"),
                )
            return None
