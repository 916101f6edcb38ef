"""Converts a pydantic model to a Kubernetes structural schema.

Pydantic emits JSON schema (2020-12). The apiserver accepts a subset of OpenAPI v3 and drops or rejects the rest.
What cannot be converted raises an error, so that no constraint exists in the model only. Strings, lists, maps and
integers must have limits, because the apiserver rejects CEL rules whose cost it cannot bound.
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
"""Keywords of each type siblingss `_COMMON`. `number` is not supported: see `_ADVICE`."""

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
"""Formats with the same meaning for pydantic and the apiserver."""

_ADVICE: Final[Mapping[str, str]] = {
    "exclusiveMinimum": "use ge= instead of gt=",
    "exclusiveMaximum": "use le= instead of lt=",
    "prefixItems": "a tuple has no structural schema: use a model",
    "propertyNames": "the keys of a map cannot be constrained: use dict[str, ...] and a Cel rule",
    "anyOf": "a union has no structural schema: use one optional field per variant and a Cel rule",
    "discriminator": "a union has no structural schema: use one optional field per variant and a Cel rule",
    "number": "use an integer and name the unit, such as a percentage or milliwatts",
    "duration": "Go and ISO 8601 write durations differently: use integer seconds",
    "binary": "use a string and document its encoding",
}

_NOT_IN_RE2: Final = re.compile(r"\(\?<?[=!]|\(\?P=|\\[1-9]")
"""Look-around and back references, which Go's regular expressions do not support."""


class SchemaError(Exception):
    """A model has a constraint that Kubernetes cannot express, or an unbounded size.

    Attributes:
        path: Field of the model, such as `GPUWorkload.spec.replicas`.
        construct: JSON schema keyword, type or format that cannot be converted.
    """

    def __init__(self, path: str, construct: str, advice: str = "") -> None:
        self.path = path
        self.construct = construct
        super().__init__(f"{path}: {construct}" + (f": {advice}" if advice else ""))


@dataclass(frozen=True)
class _Position:
    """Position in the schema: the path for messages, the definitions, and the references being followed."""

    path: str
    defs: Mapping[str, Schema]
    following: tuple[str, ...] = ()

    def at(self, step: str) -> "_Position":
        return replace(self, path=self.path + step)

    def error(self, construct: str, advice: str | None = None) -> SchemaError:
        return SchemaError(self.path, construct, _ADVICE.get(construct, "") if advice is None else advice)


def structural_schema(model: type[BaseModel], *, omit: Collection[str] = ()) -> Schema:
    """Returns the structural schema of `model`, without references and without the fields in `omit`.

    Raises:
        SchemaError: The model has a constraint that Kubernetes cannot express, or an unbounded size.
    """
    emitted = model.model_json_schema(mode="validation", by_alias=True)
    definitions = emitted.pop("$defs", {})
    for name in omit:
        emitted["properties"].pop(name)
    required = [name for name in emitted.pop("required", []) if name not in omit]
    return _convert({**emitted, "required": required} if required else emitted, _Position(model.__name__, definitions))


def _convert(node: Schema, position: _Position) -> Schema:
    """Converts a node and everything below it."""
    node, position = _inline(node, position)
    node, position = _inline(_without_null(node), position)
    node = _readable(_const_as_enum(_int_or_string(node, position)))
    kind = node.get("type")
    if node.get("x-kubernetes-int-or-string") or (kind is None and node.get("x-kubernetes-preserve-unknown-fields")):
        return node  # the two kinds of node that need no type
    if kind is None:
        _reject_unknown(node, _COMMON, position)
        raise position.error("no type", "Any has no structural schema: use FreeForm")
    if kind not in _KEYWORDS:
        raise position.error(kind)
    _reject_unknown(node, _COMMON | _KEYWORDS[kind], position)
    match kind:
        case "object":
            return _object(node, position)
        case "array":
            return _array(node, position)
        case "string":
            _check_string(node, position)
        case "integer":
            _check_integer(node, position)
    return node


def _inline(node: Schema, position: _Position) -> tuple[Schema, _Position]:
    """Replaces references in `node` by their targets. Keywords next to a reference take precedence."""
    node = {key: value for key, value in node.items() if key != "title"}
    while (reference := node.pop("$ref", None)) is not None:
        name = reference.removeprefix("#/$defs/")
        if name in position.following:
            raise position.error("recursion", f"{name} contains itself: a structural schema is finite")
        position = replace(position, following=(*position.following, name))
        target = {key: value for key, value in position.defs[name].items() if key != "title"}
        node = {**target, **node}
    return node, position


def _without_null(node: Schema) -> Schema:
    """Converts `X | None` to an optional field if null is the default, and to a `nullable` one otherwise."""
    null_is_absence = "default" in node and node["default"] is None
    if null_is_absence:
        node = {key: value for key, value in node.items() if key != "default"}
    variants = node.get("anyOf", [])
    rest = [variant for variant in variants if variant.get("type") != "null"]
    if len(rest) == len(variants):
        return node
    siblings = {key: value for key, value in node.items() if key != "anyOf"}
    if not null_is_absence:
        siblings["nullable"] = True
    return {**rest[0], **siblings} if len(rest) == 1 else {**siblings, "anyOf": rest}


def _int_or_string(node: Schema, position: _Position) -> Schema:
    """Converts `int | str`, the only union that has a structural schema. Both sides need limits."""
    variants = node.get("anyOf", [])
    if sorted(variant.get("type", "") for variant in variants) != ["integer", "string"]:
        return node
    merged: Schema = {}
    for variant in variants:
        (_check_integer if variant["type"] == "integer" else _check_string)(variant, position)
        merged |= {key: value for key, value in variant.items() if key not in {"type", "title"}}
    siblings = {key: value for key, value in node.items() if key != "anyOf"}
    return {**siblings, **merged, "x-kubernetes-int-or-string": True}


def _const_as_enum(node: Schema) -> Schema:
    """Converts `Literal["x"]` and an enumeration of one member to an enum of one value."""
    if "const" not in node:
        return node
    rest = {key: value for key, value in node.items() if key != "const"}
    return {**rest, "enum": [node["const"]]}


def _readable(node: Schema) -> Schema:
    """Puts description and type first and children last, and joins the lines of a paragraph."""
    if "description" in node:  # `kubectl explain` wraps lines
        paragraphs = node["description"].split("\n\n")
        node = {**node, "description": "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)}
    order = {"description": 0, "type": 1, "properties": 3, "items": 3, "additionalProperties": 3}
    return dict(sorted(node.items(), key=lambda entry: order.get(entry[0], 2)))


def _object(node: Schema, position: _Position) -> Schema:
    """Converts a model, a map or a free-form object."""
    has_fields = bool(node.get("properties"))
    values = node.get("additionalProperties")
    if values is True:
        raise position.error("additionalProperties", "values of any type have no structural schema: use FreeForm")
    if has_fields:
        # `extra="forbid"` is redundant with pruning and strict field validation, and cannot be combined with them.
        node = {key: value for key, value in node.items() if key != "additionalProperties"}
        fields = {name: _convert(field, position.at(f".{name}")) for name, field in node["properties"].items()}
        return _with_object_default({**node, "properties": fields}, position)
    if isinstance(values, dict):
        if "maxProperties" not in node:
            raise position.error("unbounded map", "use max_length=")
        return _without_empty_default({**node, "additionalProperties": _convert(values, position.at("[*]"))})
    if not node.get("x-kubernetes-preserve-unknown-fields"):
        raise position.error("object without fields", "use FreeForm, or give the model a field")
    return node


def _with_object_default(node: Schema, position: _Position) -> Schema:
    """Spells out a model's default, which must equal the defaults of its fields: `{}` must mean the same as absence.

    The apiserver evaluates CEL rules on a default before it adds the defaults of the fields.
    """
    if "default" not in node:
        return node
    filled_in = _without_empty(_filled_in(node))
    if _without_empty(node["default"]) != filled_in:
        raise position.error("default", "a model's default must equal the defaults of its fields")
    return {**node, "default": filled_in}


def _filled_in(node: Schema) -> Schema:
    """Returns an empty object as the apiserver completes it by defaults."""
    return {
        name: _filled_in(field) if "properties" in field else field["default"]
        for name, field in node["properties"].items()
        if "default" in field
    }


def _without_empty(value: Schema) -> Schema:
    """Returns `value` without null, empty lists and empty maps, which mean the same as absence."""
    kept = {key: _without_empty(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in (None, [], {})}


def _without_empty_default(node: Schema) -> Schema:
    """Drops an empty list or map as default: it means the same as absence and would be stored in every object."""
    return {key: value for key, value in node.items() if key != "default" or value}


def _array(node: Schema, position: _Position) -> Schema:
    """Converts a list, a set or a list-map."""
    if "maxItems" not in node:
        raise position.error("unbounded list", "use max_length=")
    if "items" not in node:
        raise position.error("no items", "specify the type of the items")
    if node.get("uniqueItems"):
        node = {key: value for key, value in node.items() if key != "uniqueItems"} | {"x-kubernetes-list-type": "set"}
    items = _convert(node["items"], position.at("[*]"))
    if node.get("x-kubernetes-list-type") == "set" and items.get("type") in {"object", "array"}:
        raise position.error("set", "only scalars form a set: use ListMap")
    for key in node.get("x-kubernetes-list-map-keys", []):
        if key not in items.get("required", []):
            raise position.at(f"[*].{key}").error("list-map key", "a key must be a required field of the items")
    return _without_empty_default({**node, "items": items})


def _check_string(node: Schema, position: _Position) -> None:
    """Raises SchemaError unless the string has a limit and a format and pattern that Kubernetes supports."""
    if "format" in node and node["format"] not in _FORMATS:
        raise position.error(node["format"])
    if match := _NOT_IN_RE2.search(node.get("pattern", "")):
        raise position.error(f"pattern with {match.group()}", "not supported by Go's regular expressions")
    if not {"maxLength", "enum"} & node.keys():
        raise position.error("unbounded string", "use max_length=")


def _check_integer(node: Schema, position: _Position) -> None:
    """Raises SchemaError unless the integer has limits."""
    if "enum" not in node and not {"minimum", "maximum"} <= node.keys():
        raise position.error("unbounded integer", "use ge= and le=")


def _reject_unknown(node: Schema, known: frozenset[str], position: _Position) -> None:
    """Raises SchemaError for the first keyword that cannot be converted."""
    for keyword in node:
        if keyword not in known:
            raise position.error(keyword)
