"""Checks that the apiserver makes by the schema and pydantic does not.

Unknown fields, duplicate list elements, and the types and values of the pod template.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from gpufleet_api.crd import WORKLOAD
from gpufleet_api.schema import Schema
from gpufleet_common.field_errors import duplicate, invalid, show, unsupported

_TEMPLATE = "spec.template."
_TYPES = {"object": Mapping, "array": list, "string": str}


def workload_problems(body: Mapping[str, Any]) -> Iterator[str]:
    """Yields the problems of a GPUWorkload, each with its path."""
    yield from _problems(_schema(), body, "")


@cache
def _schema() -> Schema:
    (version,) = WORKLOAD.definition()["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def _problems(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _object(schema, value, path)
    elif isinstance(value, list):
        yield from _duplicates(schema, value, path)
        for index, item in enumerate(value):
            yield from _problems(schema.get("items", {}), item, f"{path}[{index}]")


def _object(schema: Schema, value: Mapping[str, Any], path: str) -> Iterator[str]:
    fields = schema.get("properties")
    if fields is None:  # a map, or an object whose fields another API defines
        for name, item in value.items():
            yield from _problems(schema.get("additionalProperties", {}), item, f"{path}.{name}".lstrip("."))
        return
    for name, item in value.items():
        at = f"{path}.{name}".lstrip(".")
        if name in fields:
            yield from _value(fields[name], item, at)
            yield from _problems(fields[name], item, at)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f'unknown field "{at}": known fields: {", ".join(sorted(fields))}'


def _value(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """Checks a value of the template; pydantic checks the others. Null means absence."""
    expected, values = _TYPES.get(schema.get("type", "")), schema.get("enum", ())
    if value is None or not path.startswith(_TEMPLATE):
        return
    if expected is not None and not isinstance(value, expected):
        yield invalid(path, value, f"must be of type {schema['type']}")
    elif values and value not in values:
        yield unsupported(path, value, map(show, values))


def _duplicates(schema: Schema, value: list[Any], path: str) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") not in {"set", "map"}:
        return
    seen = []
    for index, item in enumerate(value):
        key = [item.get(k) for k in keys] if keys and isinstance(item, dict) else item
        if key in seen:
            yield duplicate(f"{path}[{index}]", key)
        seen.append(key)
