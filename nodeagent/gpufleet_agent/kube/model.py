"""The parts of the GPUTelemetry object that the agent reads, and events on pods."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpufleet_api.names import ACKNOWLEDGED_FAULTS_ANNOTATION
from gpufleet_common import timestamps


class ObjectFormatError(ValueError):
    """The object does not conform to its schema: a bug, or a writer of another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A reservation of devices for one container of a pod. Fields as in the API."""

    pod_uid: str
    namespace: str
    pod: str
    container: str
    resource: str
    devices: tuple[str, ...]
    """UUIDs, in the operator's order."""
    order: int = 0
    """Of the containers of its pod that have devices: the kubelet admits them in this order."""
    workload: str
    replica: int
    replicas: int
    memory_mib: int | None = None
    """Promised memory of each device; None: whole devices."""
    compute_percent: int | None = None
    shard_start: int | None = None
    shard_end: int | None = None
    decided_at: str = ""
    """RFC 3339 in UTC with a fixed number of digits, so that it sorts as text."""


@dataclass(frozen=True, slots=True)
class Cordon:
    """A device that is out of service."""

    uuid: str
    until: float | None = None
    """End, in seconds since the epoch; None: it does not end by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodEvent:
    """A warning event on a pod."""

    namespace: str
    pod: str
    pod_uid: str
    reason: str
    """CamelCase."""
    message: str
    episode: str = ""
    """Distinguishes events of the same pod and reason; those with the same episode are one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewal:
    """A renewal of the agent's Lease, which confirms the report that was written last."""

    namespace: str
    """That of the agent's pod."""
    holder: str
    """Name of the agent's pod."""
    duration_seconds: int
    observed_at: str
    """`status.observedAt` of the report, exactly as written."""
    telemetry_uid: str
    """UID of the GPUTelemetry, which owns the Lease."""


@dataclass(frozen=True, slots=True)
class TelemetryObject:
    """One version of the node's GPUTelemetry object."""

    uid: str
    generation: int
    """Rises with each change of the reservations and cordons, and only then."""
    resource_version: int
    """Rises with each write. Comparable within one kind; Kubernetes guarantees this since 1.35."""
    assignments: tuple[Assignment, ...] = ()
    cordons: tuple[Cordon, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """As last written, by this process or an earlier one."""
    acknowledged: str = ""
    """Value of the annotation that acknowledges faults; see `faults.acknowledgments`."""


def parse_object(document: Mapping[str, Any]) -> TelemetryObject:
    """Decodes a GPUTelemetry object.

    Raises:
        ObjectFormatError: A required field is missing or is of another type.
    """
    try:
        metadata, spec = document["metadata"], document.get("spec") or {}
        return TelemetryObject(
            uid=str(metadata["uid"]),
            generation=int(metadata["generation"]),
            resource_version=int(metadata["resourceVersion"]),
            assignments=tuple(one for entry in spec.get("assignments") or () for one in _assignments(entry)),
            cordons=tuple(_cordon(entry) for entry in spec.get("cordoned") or ()),
            status=_mapping(document.get("status")),
            acknowledged=str((metadata.get("annotations") or {}).get(ACKNOWLEDGED_FAULTS_ANNOTATION, "")),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        # AttributeError: a list or string instead of an object. OverflowError: infinity instead of an integer.
        raise ObjectFormatError(f"GPUTelemetry: {type(error).__name__}: {error}") from error


def _mapping(value: Any) -> Mapping[str, Any]:
    """Returns the status leniently: one that is not an object counts as empty."""
    return value if isinstance(value, Mapping) else {}


def _assignments(entry: Mapping[str, Any]) -> Iterator[Assignment]:
    """Yields one assignment for each container of the pod, in the order in which the containers start."""
    devices = [str(device) for device in entry["devices"]]
    containers = [(str(one["name"]), int(one["count"])) for one in entry.get("containers") or ()]
    start = 0
    for order, (name, count) in enumerate(containers or [(str(entry["container"]), len(devices))]):
        yield _assignment(entry, name, tuple(devices[start : start + count]), order)
        start += count


def _assignment(entry: Mapping[str, Any], container: str, devices: tuple[str, ...], order: int) -> Assignment:
    return Assignment(
        pod_uid=str(entry["podUID"]),
        namespace=str(entry["namespace"]),
        pod=str(entry["pod"]),
        container=container,
        order=order,
        resource=str(entry["resource"]),
        devices=devices,
        workload=str(entry["workload"]),
        replica=int(entry["replica"]),
        replicas=int(entry["replicas"]),
        memory_mib=_integer(entry, "memoryMiB"),
        compute_percent=_integer(entry, "computePercent"),
        shard_start=_integer(entry, "shardStart"),
        shard_end=_integer(entry, "shardEnd"),
        decided_at=str(entry["decidedAt"]),
    )


def _cordon(entry: Mapping[str, Any]) -> Cordon:
    return Cordon(str(entry["uuid"]), timestamps.to_epoch(entry.get("until")))


def _integer(entry: Mapping[str, Any], field: str) -> int | None:
    value = entry.get(field)
    return None if value is None else int(value)
