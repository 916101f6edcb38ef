"""Decodes API objects and skips those that cannot be decoded: one bad object must not stop the operator.

Pods of workloads are decoded by `decode_pod`.
"""

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar

import structlog
from pydantic import ValidationError

from gpufleet_api.base import ObjectMeta
from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.names import NODE_CONDITION, OPERATOR_FIELD_MANAGER
from gpufleet_api.telemetry.gpu_telemetry import GPUTelemetry
from gpufleet_api.telemetry.spec import TelemetrySpec
from gpufleet_api.workload import GPUWorkload
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.cache.compact import compact, without_unread
from gpufleet_operator.model.cluster.agent_writes import write_times
from gpufleet_operator.model.kueue.names import PRIORITY_CLASS_LABEL, QUEUE_LABEL
from gpufleet_operator.model.lenient_json import Json, as_map, maps, number, text
from gpufleet_operator.model.node_leases import NodeLease
from gpufleet_operator.model.objects import BoundPod, Node, NodeCondition, Service, Telemetry, Workload
from gpufleet_operator.model.scale_up.objects import SCALE_DOWN_DISABLED
from gpufleet_operator.pods import requests, traits
from gpufleet_operator.pods.limits.size_limits import template_error
from gpufleet_operator.pods.network import SERVICE_FIELDS

T = TypeVar("T")

_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What decoding a malformed document can raise; pydantic's ValidationError is a ValueError."""

_KUEUE_LABELS = (QUEUE_LABEL, PRIORITY_CLASS_LABEL)
_MAX_REPORTED = 1000
_MAX_MESSAGE = 1024

log = structlog.get_logger(__name__)


class Decoder:
    """Decodes objects; reports each version of an object that cannot be decoded once.

    Args:
        on_error: Called with the kind of such an object.
    """

    def __init__(self, on_error: Callable[[str], None] = lambda kind: None) -> None:  # noqa: ARG005
        self._on_error = on_error
        self._reported: set[tuple[str, str]] = set()

    def bind(self, convert: Callable[[Json], T]) -> Callable[[Json], T | None]:
        """Returns `decode` for one kind of object."""
        return partial(self.decode, convert)

    def decode(self, convert: Callable[[Json], T], body: Json) -> T | None:
        """Returns the decoded object; None if it cannot be decoded.

        Args:
            convert: Function of this module or `decode_pod`; its name is the kind.
            body: The object as JSON.
        """
        try:
            return convert(body)
        except _MALFORMED:
            meta = as_map(as_map(body).get("metadata"))
            if self._is_new(meta):
                self._on_error(convert.__name__)
                log.exception(
                    "cannot decode object",
                    kind=convert.__name__,
                    namespace=meta.get("namespace"),
                    name=meta.get("name"),
                    resource_version=meta.get("resourceVersion"),
                )
            return None

    def _is_new(self, meta: Json) -> bool:
        version = (text(meta.get("uid")), text(meta.get("resourceVersion")))
        if version in self._reported:  # each list contains it again
            return False
        if len(self._reported) >= _MAX_REPORTED:
            self._reported.clear()
        self._reported.add(version)
        return True


def workload(body: Json) -> Workload:
    """Decodes a GPUWorkload. An invalid one (stored by another version) keeps its identity, with the reason."""
    meta = body["metadata"]
    model, invalid = None, template_error(as_map(body.get("spec")).get("template"))
    try:
        if invalid:
            status = _status(body)
        else:
            model = compact(GPUWorkload.model_validate(body))
            status = model.status
            # Both are stored in separate fields, and the status may be held back.
            metadata = model.metadata.model_copy(update={"resource_version": None})
            model = model.model_copy(update={"status": None, "metadata": metadata})
    except ValidationError as error:
        invalid = _first_error(error)
        status = _status(body)
    return Workload(
        uid=sys.intern(meta["uid"]),
        namespace=sys.intern(meta["namespace"]),
        name=sys.intern(meta["name"]),
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion", ""),
        created=timestamps.parse(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        model=model,
        invalid=invalid,
        status=status,
        stored_placements={p.replica: p for p in status.placements} if status else {},
        kueue_labels={key: text(value) for key, value in as_map(meta.get("labels")).items() if key in _KUEUE_LABELS},
    )


def telemetry(body: Json) -> Telemetry:
    """Decodes a GPUTelemetry. An invalid status makes the node unusable, but keeps its reservations."""
    meta = body["metadata"]
    unreadable = ""
    try:
        model = compact(GPUTelemetry.model_validate(without_unread(body)))
    except ValidationError as error:
        unreadable = f"the status of the agent is invalid: {_first_error(error)}"
        spec = TelemetrySpec.model_validate(body.get("spec") or {})
        model = GPUTelemetry(metadata=ObjectMeta.model_validate(meta), spec=spec)
    conditions = _conditions(body)
    return Telemetry(
        uid=meta["uid"],
        name=meta["name"],
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion", ""),
        deleting="deletionTimestamp" in meta,
        model=model,
        confirmed_at=written_at(meta),
        decode_error=unreadable,
        conditions=conditions,
    )


def node(body: Json) -> Node:
    meta, spec = body["metadata"], as_map(body.get("spec"))
    return Node(
        uid=meta["uid"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        labels={key: text(value) for key, value in as_map(meta.get("labels")).items()},
        taints=requests.taints(spec),
        unschedulable=bool(spec.get("unschedulable")),
        not_ready=_not_ready(as_map(body.get("status"))),
        allocatable=requests.allocatable(as_map(as_map(body.get("status")).get("allocatable"))),
        condition=_node_condition(body),
        scale_down_held=_scale_down_held(meta),
    )


def _scale_down_held(meta: Json) -> bool:
    """Returns True if the operator, and not another client, has applied the annotation."""
    for entry in maps(meta.get("managedFields")):
        if entry.get("manager") == OPERATOR_FIELD_MANAGER and entry.get("operation") == "Apply":
            fields = as_map(as_map(as_map(entry.get("fieldsV1")).get("f:metadata")).get("f:annotations"))
            return f"f:{SCALE_DOWN_DISABLED}" in fields
    return False


def node_leases(body: Json) -> dict[str, NodeLease]:
    """Decodes a list of Leases, by node name. Leases without a renewal or a duration are left out."""
    found: dict[str, NodeLease] = {}
    for lease in maps(body.get("items")):
        name, spec = text(as_map(lease.get("metadata")).get("name")), as_map(lease.get("spec"))
        renewed, seconds = text(spec.get("renewTime")), number(spec.get("leaseDurationSeconds"))
        if name and renewed and seconds > 0:
            found[name] = NodeLease(renewed, timedelta(seconds=seconds))
    return found


def _not_ready(status: Json) -> str:
    condition = next((c for c in maps(status.get("conditions")) if c.get("type") == "Ready"), None)
    if condition is None or condition.get("status") == "True":
        return ""
    return text(condition.get("message")) or text(condition.get("reason")) or "condition Ready is not True"


def service(body: Json) -> Service:
    meta, spec = body["metadata"], as_map(body.get("spec"))
    return Service(
        uid=meta["uid"],
        namespace=meta["namespace"],
        resource_version=meta.get("resourceVersion", ""),
        owner_uid=text(_controller(meta).get("uid")),
        deleting="deletionTimestamp" in meta,
        labels={key: text(value) for key, value in as_map(meta.get("labels")).items()},
        spec={name: spec[name] for name in SERVICE_FIELDS if name in spec},
    )


def bound_pod(body: Json) -> BoundPod:
    meta, spec = body["metadata"], body["spec"]
    requested = requests.pod_requests(spec)
    return BoundPod(
        uid=meta["uid"],
        node=sys.intern(str(spec["nodeName"])),
        resource_version=meta.get("resourceVersion", ""),
        requests=requests.shared_amounts(tuple(requested.items())),
        traits=traits.bound_traits(text(meta.get("namespace")), meta.get("labels"), spec),
        deleting="deletionTimestamp" in meta,
        name=text(meta.get("name")) if requested.keys() - requests.NATIVE_RESOURCES else "",
        movable=_controller(meta).get("kind") not in (None, "DaemonSet", "Node"),
    )


def _controller(meta: Json) -> Json:
    return next((owner for owner in maps(meta.get("ownerReferences")) if owner.get("controller")), {})


def written_at(meta: Json, subresource: str | None = "status") -> datetime | None:
    """Returns when the apiserver recorded the agent's last write of the status, or of the object itself (None).

    None: the agent has written none.
    """
    return max(map(timestamps.parse, write_times(meta, subresource)), default=None)


def _conditions(body: Json) -> dict[str, Condition]:
    """Returns the conditions that parse; the next pass writes the others again."""
    found: dict[str, Condition] = {}
    for entry in maps(as_map(body.get("status")).get("conditions")):
        try:
            condition = _condition(tuple(entry.items()))
        except (TypeError, ValidationError):  # a value that has no hash is not one of a condition
            continue
        found[condition.type] = condition
    return found


@lru_cache(maxsize=4096)
def _condition(entry: tuple[tuple[str, Any], ...]) -> Condition:
    """Decodes a condition. Most versions of an object have those of the version before, and many objects the same."""
    return compact(Condition.model_validate(dict(entry)))


def _node_condition(body: Json) -> NodeCondition | None:
    for entry in maps(as_map(body.get("status")).get("conditions")):
        if entry.get("type") == NODE_CONDITION and entry.get("status") in tuple(ConditionStatus):
            return NodeCondition(
                status=ConditionStatus(entry["status"]),
                reason=text(entry.get("reason")),
                message=text(entry.get("message")),
                last_transition_time=text(entry.get("lastTransitionTime")),
            )
    return None


def _status(body: Json) -> WorkloadStatus | None:
    try:
        return WorkloadStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return None  # the next pass writes a new one


def _first_error(error: ValidationError) -> str:
    """Returns the first error, such as `spec.replicas: Input should be ... (got 0)`."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    return f"{path}: {first['msg']} (got {first['input']!r})"[:_MAX_MESSAGE]
