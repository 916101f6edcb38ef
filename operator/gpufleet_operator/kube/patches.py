"""Patches of GPUTelemetry, GPUWorkload and Node. The patch of a pod is in `pods.release`."""

from typing import Any

from gpufleet_api.base import ApiModel
from gpufleet_api.names import API_VERSION, NODE_CONDITION, TELEMETRY_KIND
from gpufleet_operator.model.actions import Reserve, WriteStatus
from gpufleet_operator.model.json_patch import JsonPatchOperation
from gpufleet_operator.model.report_actions import WriteNodeCondition, WriteTelemetryConditions


def reserve(action: Reserve) -> list[JsonPatchOperation]:
    """Returns the compare-and-swap of a node's assignments.

    Only changes of the spec increase the generation, so status writes of the agent never cause a conflict. The uid
    detects an object that was deleted and created again, whose generation starts at 1. Other fields of the spec have
    other writers and stay. The spec always exists, because the CRD has a default for it.
    """
    assignments = [as_json(a) for a in action.assignments]
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.uid},
        {"op": "test", "path": "/metadata/generation", "value": action.generation},
        {"op": "add", "path": "/spec/assignments", "value": assignments},
    ]


def status(action: WriteStatus) -> list[JsonPatchOperation]:
    """Returns the replacement of the whole status, which has no other writer."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.workload_uid},
        {"op": "add", "path": "/status", "value": as_json(action.status)},
    ]


def telemetry_conditions(action: WriteTelemetryConditions) -> dict[str, Any]:
    """Returns the operator's fields of a status. The uid keeps them out of another object of the same name."""
    return {
        "apiVersion": API_VERSION,
        "kind": TELEMETRY_KIND,
        "metadata": {"name": action.node, "uid": action.uid},
        "status": {"conditions": [as_json(condition) for condition in action.conditions]},
    }


def node_condition(action: WriteNodeCondition) -> dict[str, Any]:
    """Returns the patch of one condition; other components write the other ones."""
    condition = action.condition
    if condition is None:
        entry = {"type": NODE_CONDITION, "$patch": "delete"}
    else:
        entry = {
            "type": NODE_CONDITION,
            "status": str(condition.status),
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": condition.last_transition_time,
        }
    return {"metadata": {"uid": action.uid}, "status": {"conditions": [entry]}}


def as_json(model: ApiModel) -> dict[str, Any]:
    """Returns a model as JSON of the API: camelCase, without null and empty fields."""
    dumped: dict[str, Any] = _dense(model.model_dump(mode="json", by_alias=True, exclude_none=True))
    return dumped


def _dense(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dense(item) for key, item in value.items() if item != []}
    return [_dense(item) for item in value] if isinstance(value, list) else value
