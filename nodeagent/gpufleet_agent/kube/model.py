"""What the agent reads of its own GPUTelemetry object."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION


class ObjectFormatError(ValueError):
    """The object lacks something that its schema demands: a bug, or a writer from another time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One reservation: these devices belong to this container of this pod. Fields as in the API."""

    pod_uid: str
    namespace: str
    pod: str
    container: str
    resource: str
    devices: tuple[str, ...]
    """UUIDs, in the order in which the operator wrote them."""
    workload: str
    replica: int
    replicas: int
    memory_mib: int | None = None
    """Promised of each device; None: whole devices."""
    compute_percent: int | None = None
    shard_start: int | None = None
    shard_end: int | None = None
    decided_at: str = ""
    """RFC 3339 in UTC with a fixed number of digits, so that order as text is order in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEvent:
    """Something that went wrong with a pod, in an event's words."""

    namespace: str
    pod: str
    pod_uid: str
    reason: str
    """CamelCase, for programs."""
    message: str
    """For people."""
    episode: str = ""
    """Tells apart events of the same pod and reason; those that have it in common are one event."""


@dataclass(frozen=True, slots=True)
class TelemetryObject:
    """One version of the node's GPUTelemetry object."""

    uid: str
    generation: int
    """Rises with each change of the reservations, and with nothing else."""
    resource_version: int
    """Rises with each write. Comparing them within one kind is what Kubernetes promises since 1.35."""
    assignments: tuple[Assignment, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """As it was written last, by this process or an earlier one."""
    acknowledged: str = ""
    """What somebody vouches for, see `kube.past`."""


def parse_object(document: Mapping[str, Any]) -> TelemetryObject:
    """Read a GPUTelemetry document as JSON gives it.

    Raises:
        ObjectFormatError: A required field is missing or is of another type.
    """
    try:
        metadata = document["metadata"]
        return TelemetryObject(
            uid=str(metadata["uid"]),
            generation=int(metadata["generation"]),
            resource_version=int(metadata["resourceVersion"]),
            assignments=tuple(_assignment(entry) for entry in (document.get("spec") or {}).get("assignments") or ()),
            status=_mapping(document.get("status")),
            acknowledged=str((metadata.get("annotations") or {}).get(ACKNOWLEDGED_FAULTS_ANNOTATION, "")),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        # AttributeError: a list or text where an object should be. OverflowError: a number without end as an integer.
        raise ObjectFormatError(f"GPUTelemetry: {type(error).__name__}: {error}") from error


def _mapping(value: Any) -> Mapping[str, Any]:
    """The status is read leniently: one that is no object tells nothing."""
    return value if isinstance(value, Mapping) else {}


def _assignment(entry: Mapping[str, Any]) -> Assignment:
    return Assignment(
        pod_uid=str(entry["podUID"]),
        namespace=str(entry["namespace"]),
        pod=str(entry["pod"]),
        container=str(entry["container"]),
        resource=str(entry["resource"]),
        devices=tuple(str(device) for device in entry["devices"]),
        workload=str(entry["workload"]),
        replica=int(entry["replica"]),
        replicas=int(entry["replicas"]),
        memory_mib=_integer(entry, "memoryMiB"),
        compute_percent=_integer(entry, "computePercent"),
        shard_start=_integer(entry, "shardStart"),
        shard_end=_integer(entry, "shardEnd"),
        decided_at=str(entry["decidedAt"]),
    )


def _integer(entry: Mapping[str, Any], field: str) -> int | None:
    value = entry.get(field)
    return None if value is None else int(value)
