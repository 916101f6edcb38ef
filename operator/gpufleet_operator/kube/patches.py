"""The JSON Patches for GPUTelemetry and GPUWorkload. A pod's: `podpatch.py`."""

from typing import Any

from gpufleet_api.base import ApiModel
from gpufleet_operator.model.actions import Reserve, WriteStatus

Operation = dict[str, Any]


def reserve(action: Reserve) -> list[Operation]:
    """The compare-and-swap on a node's assignments.

    The generation rises with spec alone, so the agent's status writes never make it fail; the uid tells an object
    that was made anew, whose generation starts again at 1.
    """
    assignments = [as_json(a) for a in action.assignments]
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.uid},
        {"op": "test", "path": "/metadata/generation", "value": action.generation},
        {"op": "add", "path": "/spec", "value": {"assignments": assignments}},
    ]


def status(action: WriteStatus) -> list[Operation]:
    """Replace the whole status, which has no other writer, of exactly this object."""
    return [
        {"op": "test", "path": "/metadata/uid", "value": action.workload_uid},
        {"op": "add", "path": "/status", "value": as_json(action.status)},
    ]


def as_json(model: ApiModel) -> dict[str, Any]:
    """As the API has it: camelCase, absent instead of null or empty."""
    dumped: dict[str, Any] = _dense(model.model_dump(mode="json", by_alias=True, exclude_none=True))
    return dumped


def _dense(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dense(item) for key, item in value.items() if item != []}
    return [_dense(item) for item in value] if isinstance(value, list) else value
