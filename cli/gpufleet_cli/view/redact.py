"""Leaves out what a bug report must not have: values of environment variables, commands, foreign annotations.

Secrets and ConfigMaps are never read.
"""

from collections.abc import Mapping
from typing import Any, Final

from gpufleet_api.names import GROUP
from gpufleet_operator.model.lenient_json import Json, as_map

_DROPPED: Final = frozenset(
    {"command", "args", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "images"}
)
"""Fields of containers that may contain secrets, and a long list in the status of nodes."""


def redacted(body: Json, *, keep_arguments: bool = False) -> Json:
    """Returns a copy without what may be secret.

    Args:
        body: An object of the API.
        keep_arguments: Keeps commands and arguments, as of agents and operator: they have no secret.
    """
    if body.get("kind") == "CustomResourceDefinition":  # a schema names fields and has no values of them
        return {**body, "metadata": _metadata(as_map(body.get("metadata")))}
    kept = frozenset({"command", "args"}) if keep_arguments else frozenset()
    copy = {
        key: _value(key, value, _DROPPED - kept) for key, value in body.items() if key not in ("data", "stringData")
    }
    return {**copy, "metadata": _metadata(as_map(body.get("metadata")))}


def _value(key: str, value: Any, dropped: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        found = {name: _value(name, item, dropped) for name, item in value.items() if name not in dropped}
        return {**found, "metadata": _metadata(as_map(value["metadata"]))} if "metadata" in value else found
    if isinstance(value, list | tuple):
        items = [_value("", item, dropped) for item in value]
        return [_without_value(item) for item in items] if key == "env" else items
    return value


def _without_value(variable: Any) -> Any:
    if not isinstance(variable, Mapping) or "value" not in variable:
        return variable
    return {**{name: item for name, item in variable.items() if name != "value"}, "value": "REDACTED"}


def _metadata(meta: Json) -> Json:
    found = {name: value for name, value in meta.items() if name not in ("annotations", "managedFields")}
    annotations = {k: v for k, v in as_map(meta.get("annotations")).items() if k.split("/")[0].endswith(GROUP)}
    if annotations:
        found["annotations"] = annotations
    if "managedFields" in meta:  # who wrote when; telemetry's age is computed from it
        found["managedFields"] = [
            {name: item for name, item in as_map(entry).items() if name != "fieldsV1"}
            for entry in meta["managedFields"]
        ]
    return found
