"""From a pydantic model to a Kubernetes structural schema.

Pydantic emits JSON schema (2020-12), the apiserver takes a narrow dialect of OpenAPI v3 and silently drops or
refuses the rest. One recursive function maps what can be mapped, and raises on everything else: a constraint that
the apiserver would not enforce must not look as if it did. Strings, lists, maps and integers must have limits, because
the apiserver refuses CEL rules whose cost it can't bound.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]
"""A JSON schema, or a part of one."""

_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "array": frozenset({"items", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format", "enum"}),
    "integer": frozenset({"minimum", "maximum", "multipleOf", "enum"}),
    "boolean": frozenset(),
}
"""What a node of each type may say beside `_COMMON`. `number` is missing on purpose: see `_ADVICE`."""

_COMMON: Final = frozenset(
    {
        "type",
        "description",
        "default",
        "nullable",
        "x-kubernetes-validations",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
    }
)

_FORMATS: Final = frozenset({"date", "date-time"})
"""Formats that mean the same to pydantic's readers and to the apiserver."""

_ADVICE: Final[Mapping[str, str]] = {
    "exclusiveMinimum": "use ge= instead of gt=",
    "exclusiveMaximum": "use le= instead of lt=",
    "prefixItems": "a tuple has no structural schema: use a model",
    "propertyNames": "keys of a map can't be constrained: use dict[str, ...] and a Cel rule",
    "anyOf": "a union has no structural schema: use one optional field per variant and a Cel rule",
    "discriminator": "a union has no structural schema: use one optional field per variant and a Cel rule",
    "number": "use an integer and name the unit, such as a percentage or milliwatts",
    "duration": "Go and ISO 8601 write durations differently: use integer seconds",
    "binary": "use a string and say how it is encoded",
}

_NOT_IN_RE2: Final = re.compile(r"\(\?<?[=!]|\(\?P=|\\[1-9]")
"""Look-around and back references, which Go's regular expressions don't have."""


class SchemaError(Exception):
    """A model says something that Kubernetes can't express, or leaves a size unbounded.

    Attributes:
        path: where, as in `GPUWorkload.spec.replicas`.
        construct: the JSON schema keyword, type or format that can't be mapped.
    """

    def __init__(self, path: str, construct: str, advice: str = "") -> None:
        self.path = path
        self.construct = construct
        super().__init__(f"{path}: {construct}" + (f": {advice}" if advice else ""))


@dataclass(frozen=True)
class _Place:
    """Where in the tree we are: the path for messages, the definitions, and the references being followed."""

    path: str
    defs: Mapping[str, Schema]
    following: tuple[str, ...] = ()

    def at(self, step: str) -> "_Place":
        return replace(self, path=self.path + step)

    def error(self, construct: str, advice: str | None = None) -> SchemaError:
        return SchemaError(self.path, construct, _ADVICE.get(construct, "") if advice is None else advice)


def structural_schema(model: type[BaseModel], *, omit: Collection[str] = ()) -> Schema:
    """The structural schema of `model`, complete in itself, without the fields that `omit` names.

    Raises:
        SchemaError: the model says something that Kubernetes can't express, or leaves a size unbounded.
    """
    emitted = model.model_json_schema(mode="validation", by_alias=True)
    definitions = emitted.pop("$defs", {})
    for name in omit:
        emitted["properties"].pop(name)
    required = [name for name in emitted.pop("required", []) if name not in omit]
    return _convert({**emitted, "required": required} if required else emitted, _Place(model.__name__, definitions))


def _convert(node: Schema, place: _Place) -> Schema:
    """One node and all below it."""
    node, place = _inline(node, place)
    node, place = _inline(_without_null(node), place)
    node = _readable(_const_as_enum(_int_or_string(node, place)))
    kind = node.get("type")
    if node.get("x-kubernetes-int-or-string") or (kind is None and node.get("x-kubernetes-preserve-unknown-fields")):
        return node  # the two kinds of node that Kubernetes lets go without a type
    if kind is None:
        _refuse_unknown(node, _COMMON, place)
        raise place.error("no type", "Any has no structural schema: use FreeForm")
    if kind not in _KEYWORDS:
        raise place.error(kind)
    _refuse_unknown(node, _COMMON | _KEYWORDS[kind], place)
    match kind:
        case "object":
            return _object(node, place)
        case "array":
            return _array(node, place)
        case "string":
            _check_string(node, place)
        case "integer":
            _check_integer(node, place)
    return node


def _inline(node: Schema, place: _Place) -> tuple[Schema, _Place]:
    """`node` with its references replaced by what they name; what stands beside a reference wins."""
    node = {key: value for key, value in node.items() if key != "title"}
    while (reference := node.pop("$ref", None)) is not None:
        name = reference.removeprefix("#/$defs/")
        if name in place.following:
            raise place.error("recursion", f"{name} contains itself: a structural schema is finite")
        place = replace(place, following=(*place.following, name))
        target = {key: value for key, value in place.defs[name].items() if key != "title"}
        node = {**target, **node}
    return node, place


def _without_null(node: Schema) -> Schema:
    """`X | None`: optional, when null is the default; `nullable`, when null is a value of its own."""
    null_is_absence = "default" in node and node["default"] is None
    if null_is_absence:
        node = {key: value for key, value in node.items() if key != "default"}
    variants = node.get("anyOf", [])
    rest = [variant for variant in variants if variant.get("type") != "null"]
    if len(rest) == len(variants):
        return node
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    if not null_is_absence:
        beside["nullable"] = True
    return {**rest[0], **beside} if len(rest) == 1 else {**beside, "anyOf": rest}


def _int_or_string(node: Schema, place: _Place) -> Schema:
    """`int | str`: the one union that has a structural schema, as long as both sides have limits."""
    variants = node.get("anyOf", [])
    if sorted(variant.get("type", "") for variant in variants) != ["integer", "string"]:
        return node
    merged: Schema = {}
    for variant in variants:
        (_check_integer if variant["type"] == "integer" else _check_string)(variant, place)
        merged |= {key: value for key, value in variant.items() if key not in {"type", "title"}}
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    return {**beside, **merged, "x-kubernetes-int-or-string": True}


def _const_as_enum(node: Schema) -> Schema:
    """`Literal["x"]` and an enumeration of one member: an enum of one value."""
    if "const" not in node:
        return node
    rest = {key: value for key, value in node.items() if key != "const"}
    return {**rest, "enum": [node["const"]]}


def _readable(node: Schema) -> Schema:
    """Description and type first, children last; a docstring's lines joined into paragraphs."""
    if "description" in node:  # `kubectl explain` wraps lines itself
        paragraphs = node["description"].split("\n\n")
        node = {**node, "description": "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)}
    order = {"description": 0, "type": 1, "properties": 3, "items": 3, "additionalProperties": 3}
    return dict(sorted(node.items(), key=lambda entry: order.get(entry[0], 2)))


def _object(node: Schema, place: _Place) -> Schema:
    """A model, a map or a free-form object."""
    has_fields = bool(node.get("properties"))
    values = node.get("additionalProperties")
    if values is True:
        raise place.error("additionalProperties", "values of any kind have no structural schema: use FreeForm")
    if has_fields:
        # `extra="forbid"`: pruning and strict field validation do it already, and the two exclude one another.
        node = {key: value for key, value in node.items() if key != "additionalProperties"}
        fields = {name: _convert(field, place.at(f".{name}")) for name, field in node["properties"].items()}
        return _with_object_default({**node, "properties": fields}, place)
    if isinstance(values, dict):
        if "maxProperties" not in node:
            raise place.error("unbounded map", "use max_length=")
        return _without_empty_default({**node, "additionalProperties": _convert(values, place.at("[*]"))})
    if not node.get("x-kubernetes-preserve-unknown-fields"):
        raise place.error("object without fields", "use FreeForm, or give the model a field")
    return node


def _with_object_default(node: Schema, place: _Place) -> Schema:
    """A model's default must repeat what its fields default to, or `{}` would not mean the same as absence.

    It is spelled out all the same: the apiserver runs CEL rules over a default before it fills in the fields' own.
    """
    if "default" not in node:
        return node
    filled_in = _without_nothing(_filled_in(node))
    if _without_nothing(node["default"]) != filled_in:
        raise place.error("default", "a model's default must be what its fields default to")
    return {**node, "default": filled_in}


def _filled_in(node: Schema) -> Schema:
    """What the apiserver makes of an empty object."""
    return {
        name: _filled_in(field) if "properties" in field else field["default"]
        for name, field in node["properties"].items()
        if "default" in field
    }


def _without_nothing(value: Schema) -> Schema:
    """`value` without what absence means as well: null, empty lists, empty maps."""
    kept = {key: _without_nothing(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in (None, [], {})}


def _without_empty_default(node: Schema) -> Schema:
    """An empty list or map is what absence means, so it isn't stored in each object."""
    return {key: value for key, value in node.items() if key != "default" or value}


def _array(node: Schema, place: _Place) -> Schema:
    """A list, a set or a list-map."""
    if "maxItems" not in node:
        raise place.error("unbounded list", "use max_length=")
    if "items" not in node:
        raise place.error("no items", "say what the list holds")
    if node.get("uniqueItems"):
        node = {key: value for key, value in node.items() if key != "uniqueItems"} | {"x-kubernetes-list-type": "set"}
    items = _convert(node["items"], place.at("[*]"))
    if node.get("x-kubernetes-list-type") == "set" and items.get("type") in {"object", "array"}:
        raise place.error("set", "only scalars form a set: use ListMap")
    for key in node.get("x-kubernetes-list-map-keys", []):
        if key not in items.get("required", []):
            raise place.at(f"[*].{key}").error("list-map key", "a key must be a required field of the items")
    return _without_empty_default({**node, "items": items})


def _check_string(node: Schema, place: _Place) -> None:
    """Raise unless the string has a limit and a format and pattern that Kubernetes knows."""
    if "format" in node and node["format"] not in _FORMATS:
        raise place.error(node["format"])
    if match := _NOT_IN_RE2.search(node.get("pattern", "")):
        raise place.error(f"pattern with {match.group()}", "Go's regular expressions don't have it")
    if not {"maxLength", "enum"} & node.keys():
        raise place.error("unbounded string", "use max_length=")


def _check_integer(node: Schema, place: _Place) -> None:
    """Raise unless the integer has limits."""
    if "enum" not in node and not {"minimum", "maximum"} <= node.keys():
        raise place.error("unbounded integer", "use ge= and le=")


def _refuse_unknown(node: Schema, known: frozenset[str], place: _Place) -> None:
    """Raise on the first keyword that has no mapping."""
    for keyword in node:
        if keyword not in known:
            raise place.error(keyword)
