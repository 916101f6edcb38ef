"""Markers for what Kubernetes schemas express and pydantic does not: list types, CEL rules, free-form objects.

A marker in `Annotated[...]` (or in a model's `rules`) adds its `x-kubernetes-*` keys to the JSON schema that pydantic
emits, from which `schema.py` builds the structural schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

EMPTY: Any = Field(default_factory=list)
"""Default of a list. For each object without it, pydantic would copy `[]` by `copy.deepcopy`, which takes long."""

EMPTY_MAP: Any = Field(default_factory=dict)
"""The same of a map."""


@dataclass(frozen=True)
class ListMap:
    """A list that server-side apply merges by key instead of replacing it."""

    keys: tuple[str, ...]

    def __init__(self, *keys: str) -> None:
        object.__setattr__(self, "keys", keys)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = dict(handler(core))
        return {**schema, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.keys)}


@dataclass(frozen=True)
class ListSet:
    """A list of scalars without duplicates."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "x-kubernetes-list-type": "set"}


@dataclass(frozen=True)
class ListAtomic:
    """A list that server-side apply replaces as a whole, because it has one writer.

    The apiserver then neither merges its items nor records who owns each of their fields.
    """

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "x-kubernetes-list-type": "atomic"}


@dataclass(frozen=True)
class NullIsEmpty:
    """Accepts null as an empty list: server-side apply leaves null when an owner removes the last item."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(_empty_if_null, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "nullable": True}


def _empty_if_null(value: object) -> object:
    return [] if value is None else value


@dataclass(frozen=True, eq=False)
class FreeForm:
    """A dict whose fields another API defines, such as a pod template.

    `schema` is its structural schema in the CRD. The default is an object with any fields, which are not pruned.
    """

    schema: Mapping[str, Any] | None = None

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})


@dataclass(frozen=True)
class Cel:
    """One `x-kubernetes-validations` rule.

    `message` is the detail of a field.Error, such as "must be set when mode is Shared"; `reason` is a Kubernetes
    FieldValueErrorReason; `field_path` (`.replicas`) is the field of the error, relative to the object with the rule.
    """

    rule: str
    message: str
    reason: str | None = None
    field_path: str | None = None

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = dict(handler(core))
        rules = [*schema.get("x-kubernetes-validations", []), self.as_schema()]
        return {**schema, "x-kubernetes-validations": rules}

    def as_schema(self) -> dict[str, str]:
        """Returns the rule as the CRD has it."""
        schema = {"rule": self.rule, "message": self.message, "reason": self.reason, "fieldPath": self.field_path}
        return {key: value for key, value in schema.items() if value is not None}
