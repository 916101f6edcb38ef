"""API objects as JSON -> views: GPUWorkload, GPUTelemetry, Node and other people's pods. Pods of ours: `podview.py`."""

from datetime import datetime

from pydantic import ValidationError

from gpufleet_api.names import AGENT_FIELD_MANAGER
from gpufleet_api.telemetry import GPUTelemetry, ObjectMeta, TelemetrySpec
from gpufleet_api.workload import GPUWorkload, WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.model.lenient_json import Json, as_map, maps, text
from gpufleet_operator.model.objects import BoundPod, Node, Telemetry, Workload
from gpufleet_operator.pods import requests


def workload(body: Json) -> Workload:
    """A GPUWorkload; one that doesn't parse (stored by another version) keeps its identity and says why."""
    meta = body["metadata"]
    model, invalid = None, ""
    try:
        model = GPUWorkload.model_validate(body)
        status = model.status
    except ValidationError as error:
        invalid = _first(error)
        status = _status_alone(body)
    return Workload(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion", ""),
        created=timestamps.parse(meta["creationTimestamp"]),
        deleting="deletionTimestamp" in meta,
        model=model,
        invalid=invalid,
        status=status,
        recorded={p.replica: p for p in status.placements} if status else {},
    )


def telemetry(body: Json) -> Telemetry:
    """A GPUTelemetry. A status that doesn't parse makes the node unusable, never its reservations unknown."""
    meta = body["metadata"]
    unreadable = ""
    try:
        model = GPUTelemetry.model_validate(body)
    except ValidationError as error:
        unreadable = f"the agent's status can't be read: {_first(error)}"
        spec = TelemetrySpec.model_validate(body.get("spec") or {})
        model = GPUTelemetry(metadata=ObjectMeta.model_validate(meta), spec=spec)
    return Telemetry(
        uid=meta["uid"],
        name=meta["name"],
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion", ""),
        deleting="deletionTimestamp" in meta,
        model=model,
        written_at=written_at(meta),
        unreadable=unreadable,
    )


def node(body: Json) -> Node:
    """A v1.Node."""
    meta, spec = body["metadata"], as_map(body.get("spec"))
    return Node(
        uid=meta["uid"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        labels={key: text(value) for key, value in as_map(meta.get("labels")).items()},
        taints=requests.taints(spec),
        unschedulable=bool(spec.get("unschedulable")),
        allocatable=requests.allocatable(as_map(as_map(body.get("status")).get("allocatable"))),
    )


def bound_pod(body: Json) -> BoundPod:
    """A v1.Pod that has a node."""
    meta, spec = body["metadata"], body["spec"]
    return BoundPod(
        uid=meta["uid"],
        node=str(spec["nodeName"]),
        resource_version=meta.get("resourceVersion", ""),
        requests=requests.pod_requests(spec),
    )


def _status_alone(body: Json) -> WorkloadStatus | None:
    try:
        return WorkloadStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return None  # it is written anew


def written_at(meta: Json) -> datetime | None:
    """When the apiserver last recorded a status write of the agent: the only clock that the node can't turn."""
    moments = [
        timestamps.parse(entry["time"])
        for entry in maps(meta.get("managedFields"))
        if entry.get("manager") == AGENT_FIELD_MANAGER and entry.get("subresource") == "status" and entry.get("time")
    ]
    return max(moments, default=None)


def _first(error: ValidationError) -> str:
    """The first problem, as `spec.replicas: Input should be ... (got 0)`."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    return f"{path}: {problem['msg']} (got {problem['input']!r})"[:1024]
