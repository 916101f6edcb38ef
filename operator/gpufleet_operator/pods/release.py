"""Builds the patches of gated pods. A release restricts a pod to its node, annotates it and removes the gate.

One JSON Patch does all, because it is atomic, and because the apiserver allows a narrower node affinity only while the
old object has a gate. The tests on uid and resourceVersion limit it to exactly the pod that was decided on.
"""

import json
from typing import Any

from gpufleet_api.names import ASSIGNMENT_ANNOTATION, SCHEDULING_GATE, WAITING_FOR_ANNOTATION
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.model.json_patch import JsonPatchOperation
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.pods.node_affinity import REQUIRED

_WAITING_FOR = f"/metadata/annotations/{WAITING_FOR_ANNOTATION.replace('/', '~1')}"
_AFFINITY = "/spec/affinity"
_NODE_AFFINITY = f"{_AFFINITY}/nodeAffinity"
_REQUIRED = f"{_NODE_AFFINITY}/{REQUIRED}"


def release(pod: Pod, node: str, assignment: Assignment) -> tuple[JsonPatchOperation, ...]:
    """Returns the patch of a pod whose only gate is that of gpufleet. A pod that follows its claim is not pinned."""
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.resource_version},
        {"op": "test", "path": "/spec/schedulingGates/0/name", "value": SCHEDULING_GATE},
        *([] if pod.follows_claim else _pin(pod, node)),
        *_annotate(pod, node, assignment),
        *([{"op": "remove", "path": _WAITING_FOR}] if pod.waiting_for else []),
        {"op": "remove", "path": "/spec/schedulingGates/0"},
    )


def reassign(pod: Pod, node: str, assignment: Assignment) -> tuple[JsonPatchOperation, ...]:
    """Returns the patch of a released pod that gets other devices: see `decide.claims.reassignment`."""
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.resource_version},
        *_annotate(pod, node, assignment),
    )


def explain(pod: Pod, waiting_for: str) -> tuple[JsonPatchOperation, ...]:
    """Returns the patch that annotates a gated pod with what it waits for."""
    if pod.has_annotations:
        annotate = _add(_WAITING_FOR, waiting_for)
    else:
        annotate = _add("/metadata/annotations", {WAITING_FOR_ANNOTATION: waiting_for})
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.resource_version},
        annotate,
    )


def _pin(pod: Pod, node: str) -> list[JsonPatchOperation]:
    """Restricts the pod to its node, by match field: kube-scheduler then examines only that node, unlike by label.

    Terms are ORed, so each gets the field. An empty term matches no node and must stay empty: the apiserver rejects it
    otherwise, because the affinity would match more than before.
    """
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    shape = pod.affinity
    if not shape.affinity:
        return [_add(_AFFINITY, {"nodeAffinity": {REQUIRED: required}})]
    if not shape.node_affinity:
        return [_add(_NODE_AFFINITY, {REQUIRED: required})]
    if shape.terms is None:
        return [_add(_REQUIRED, required)]
    operations = []
    for index, term in enumerate(shape.terms):
        path = f"{_REQUIRED}/nodeSelectorTerms/{index}/matchFields"
        if not term.empty:
            operations.append(_add(f"{path}/-", field) if term.has_fields else _add(path, [field]))
    return operations


def _annotate(pod: Pod, node: str, assignment: Assignment) -> list[JsonPatchOperation]:
    note: dict[str, Any] = {"node": node, "container": assignment.container, "devices": assignment.devices}
    if assignment.containers is not None:
        note["containers"] = [{"name": one.name, "count": one.count} for one in assignment.containers]
    if assignment.memory_mib is not None:
        note["memoryMiB"] = assignment.memory_mib
    if assignment.compute_percent is not None:
        note["computePercent"] = assignment.compute_percent
    if assignment.shard_start is not None:
        note |= {"shardStart": assignment.shard_start, "shardEnd": assignment.shard_end}
    value = json.dumps(note, separators=(",", ":"))
    if not pod.has_annotations:
        return [_add("/metadata/annotations", {ASSIGNMENT_ANNOTATION: value})]
    return [_add(f"/metadata/annotations/{ASSIGNMENT_ANNOTATION.replace('/', '~1')}", value)]


def _add(path: str, value: Any) -> JsonPatchOperation:
    return {"op": "add", "path": path, "value": value}
