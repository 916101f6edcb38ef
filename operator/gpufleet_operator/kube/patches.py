"""JSON Patches of GPUTelemetry and GPUWorkload. The patch of a pod is in `pods.release`."""

from typing import Any

from gpufleet_api.base import ApiModel
from gpufleet_operator.model.actions import Reserve, WriteStatus
from gpufleet_operator.model.json_patch import JsonPatchOperation


def reserve(action: Reserve) -> list[JsonPatchOperation]:
    """Returns the compare-and-swap of a node's assignments.

    Only changes of the spec increase the generation, so status writes of the agent never cause a conflict. The uid
    detects an object that was deleted and created again, whose generation starts at 1.
    """
    assignments = [as_json(a) for a in action.assignments]
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.uid},
        {"op": "test", "path": "/metadata/generation", "value": action.generation},
        {"op": "add", "path": "/spec", "value": {"assignments": assignments}},
    ]


def status(action: WriteStatus) -> list[JsonPatchOperation]:
    """Returns the replacement of the whole status, which has no other writer."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.workload_uid},
        {"op": "add", "path": "/status", "value": as_json(action.status)},
    ]


def as_json(model: ApiModel) -> dict[str, Any]:
    """Returns a model as JSON of the API: camelCase, without null and empty fields."""
    dumped: dict[str, Any] = _dense(model.model_dump(mode="json", by_alias=True, exclude_none=True))
    return dumped


def _dense(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dense(item) for key, item in value.items() if item != []}
    return [_dense(item) for item in value] if isinstance(value, list) else value
