"""One case per pydantic construct: its conversion to the CRD, or its rejection."""

import datetime as dt
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from gpufleet_api.base import ApiModel
from gpufleet_api.markers import Cel, FreeForm, ListMap, ListSet
from gpufleet_api.schema import SchemaError, structural_schema

Text = Annotated[str, Field(max_length=8)]
Small = Annotated[int, Field(ge=0, le=9)]


class Color(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Only(StrEnum):
    ONE = "One"


class Number(IntEnum):
    TWO = 2
    THREE = 3


class Mixed(Enum):
    A = "a"
    B = 1


class Inner(ApiModel):
    """Docs of the class."""

    name: Text
    count: Small = 3


class Defaulted(ApiModel):
    size: Small = 4
    inner_size: Annotated[Small, Field()] = 5
    tags: Annotated[list[Text], Field(max_length=2)] = []  # noqa: RUF012  # pydantic copies defaults
    note: Text | None = None


class Node(ApiModel):
    children: Annotated[list["Node"], Field(max_length=3)]


class Forbidding(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Text


class Allowing(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: Text


class Fieldless(BaseModel):
    pass


class Cat(BaseModel):
    kind: Literal["Cat"]


class Dog(BaseModel):
    kind: Literal["Dog"]


def model_of(annotation: Any, default: object = ...) -> type[BaseModel]:
    return create_model("M", __base__=ApiModel, field=(annotation, default))


INNER = {
    "description": "Docs of the class.",
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "count": {"type": "integer", "minimum": 0, "maximum": 9, "default": 3},
    },
}

ACCEPTED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bounded string": (Text, ..., {"type": "string", "maxLength": 8}),
    "string with pattern": (
        Annotated[str, Field(max_length=8, pattern="^a+$")],
        ...,
        {"type": "string", "maxLength": 8, "pattern": "^a+$"},
    ),
    "bounded integer": (Small, ..., {"type": "integer", "minimum": 0, "maximum": 9}),
    "boolean": (bool, False, {"type": "boolean", "default": False}),
    "literal default": (Small, 4, {"type": "integer", "minimum": 0, "maximum": 9, "default": 4}),
    "default factory: optional, and the server fills in nothing": (
        Text,
        Field(default_factory=str),
        {"type": "string", "maxLength": 8},
    ),
    "optional: not required, no null": (Text | None, None, {"type": "string", "maxLength": 8}),
    "required but nullable": (Text | None, ..., {"type": "string", "maxLength": 8, "nullable": True}),
    "nullable with another default": (
        Small | None,
        2,
        {"type": "integer", "minimum": 0, "maximum": 9, "nullable": True, "default": 2},
    ),
    "enumeration": (Color, ..., {"type": "string", "enum": ["Red", "Blue"]}),
    "enumeration with default": (
        Color,
        Color.BLUE,
        {"type": "string", "enum": ["Red", "Blue"], "default": "Blue"},
    ),
    "enumeration of one": (Only, ..., {"type": "string", "enum": ["One"]}),
    "enumeration of integers": (Number, ..., {"type": "integer", "enum": [2, 3]}),
    "literal of one": (Literal["x"], ..., {"type": "string", "enum": ["x"]}),
    "literal of two": (Literal["x", "y"], ..., {"type": "string", "enum": ["x", "y"]}),
    "date-time": (
        Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})],
        ...,
        {"type": "string", "maxLength": 40, "format": "date-time"},
    ),
    "nested model, inlined": (Inner, ..., INNER),
    "optional nested model": (Inner | None, None, INNER),
    "nested model with default": (
        Defaulted,
        Defaulted(),
        {
            "type": "object",
            "default": {"size": 4, "innerSize": 5},
            "properties": {
                "size": {"type": "integer", "minimum": 0, "maximum": 9, "default": 4},
                "innerSize": {"type": "integer", "minimum": 0, "maximum": 9, "default": 5},
                "tags": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 8}},
                "note": {"type": "string", "maxLength": 8},
            },
        },
    ),
    "extra=forbid: pruning does it": (
        Forbidding,
        ...,
        {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 8}}},
    ),
    "list": (
        Annotated[list[Text], Field(max_length=2, min_length=1)],
        ...,
        {"type": "array", "maxItems": 2, "minItems": 1, "items": {"type": "string", "maxLength": 8}},
    ),
    "empty list as default means absence": (
        Annotated[list[Text], Field(max_length=2)],
        [],
        {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 8}},
    ),
    "python set": (
        Annotated[set[Text], Field(max_length=2)],
        ...,
        {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 8},
        },
    ),
    "list marked as set": (
        Annotated[list[Text], Field(max_length=2), ListSet()],
        ...,
        {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 8},
        },
    ),
    "list marked as map": (
        Annotated[list[Inner], Field(max_length=2), ListMap("name")],
        ...,
        {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": INNER,
        },
    ),
    "map": (
        Annotated[dict[str, Small], Field(max_length=2)],
        {},
        {
            "type": "object",
            "maxProperties": 2,
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9},
        },
    ),
    "int or string": (
        Small | Text,
        ...,
        {"x-kubernetes-int-or-string": True, "minimum": 0, "maximum": 9, "maxLength": 8},
    ),
    "free form": (
        Annotated[dict[str, Any], FreeForm()],
        ...,
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    ),
    "free form without a type": (
        Annotated[dict[str, Any], FreeForm({"x-kubernetes-preserve-unknown-fields": True, "required": ["a"]})],
        ...,
        {"x-kubernetes-preserve-unknown-fields": True, "required": ["a"]},
    ),
    "CEL rule on a field": (
        Annotated[Small, Cel("self % 2 == 0", "field must be even", field_path=".x")],
        ...,
        {
            "type": "integer",
            "minimum": 0,
            "maximum": 9,
            "x-kubernetes-validations": [
                {"rule": "self % 2 == 0", "message": "field must be even", "fieldPath": ".x"},
            ],
        },
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_construct_is_converted(case: str) -> None:
    annotation, default, want = ACCEPTED[case]
    schema = structural_schema(model_of(annotation, default))
    assert schema["properties"]["field"] == want
    assert schema.get("required", []) == (["field"] if default is ... else [])


REJECTED: dict[str, tuple[Any, str]] = {
    "gt": (Annotated[int, Field(gt=0, le=9)], "exclusiveMinimum"),
    "lt": (Annotated[int, Field(ge=0, lt=9)], "exclusiveMaximum"),
    "float": (Annotated[float, Field(ge=0, le=1)], "number"),
    "Any": (Any, "no type"),
    "dict of Any without FreeForm": (Annotated[dict[str, Any], Field(max_length=3)], "additionalProperties"),
    "extra=allow": (Allowing, "additionalProperties"),
    "tuple": (tuple[Small, Text], "prefixItems"),
    "map keyed by an enumeration": (Annotated[dict[Color, Small], Field(max_length=2)], "propertyNames"),
    "map with bounded keys": (Annotated[dict[Text, Small], Field(max_length=2)], "propertyNames"),
    "union of models": (Inner | Forbidding, "anyOf"),
    "union of scalars": (bool | Text, "anyOf"),
    "discriminated union": (Annotated[Cat | Dog, Field(discriminator="kind")], "discriminator"),
    "enumeration of mixed types": (Mixed, "enum"),
    "timedelta": (dt.timedelta, "duration"),
    "bytes": (Annotated[bytes, Field(max_length=3)], "binary"),
    "time of day": (dt.time, "time"),
    "recursion": (Node, "recursion"),
    "model without fields": (Fieldless, "object without fields"),
    "unknown keyword": (Annotated[Small, Field(json_schema_extra={"contentMediaType": "x"})], "contentMediaType"),
    "look-ahead": (Annotated[str, Field(max_length=3, json_schema_extra={"pattern": "(?=a)"})], "pattern with (?="),
    "back reference": (
        Annotated[str, Field(max_length=3, json_schema_extra={"pattern": r"(a)\1"})],
        r"pattern with \1",
    ),
    "unbounded string": (str, "unbounded string"),
    "date-time of pydantic is unbounded": (dt.datetime, "unbounded string"),
    "unbounded integer": (int, "unbounded integer"),
    "integer without minimum": (Annotated[int, Field(le=9)], "unbounded integer"),
    "unbounded list": (list[Text], "unbounded list"),
    "unbounded map": (dict[str, Small], "unbounded map"),
    "bare list": (Annotated[list[Any], Field(max_length=1)], "no type"),
    "unbounded side of int or string": (Small | str, "unbounded string"),
    "set of models": (Annotated[list[Inner], Field(max_length=2), ListSet()], "set"),
    "list-map key that does not exist": (Annotated[list[Inner], Field(max_length=2), ListMap("uid")], "list-map key"),
    "list-map key that is optional": (Annotated[list[Inner], Field(max_length=2), ListMap("count")], "list-map key"),
    "unbounded string deep inside": (Annotated[list[dict[str, Text]], Field(max_length=2)], "unbounded map"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_construct_is_rejected_by_name(case: str) -> None:
    annotation, construct = REJECTED[case]
    with pytest.raises(SchemaError) as caught:
        structural_schema(model_of(annotation))
    assert caught.value.construct == construct
    assert caught.value.path.startswith("M.field")
    assert str(caught.value).startswith(f"{caught.value.path}: {construct}")


def test_model_default_that_differs_from_its_fields_is_rejected() -> None:
    with pytest.raises(SchemaError, match=r"M\.field: default"):
        structural_schema(model_of(Defaulted, Defaulted(size=1)))


def test_error_path_has_lists_and_fields() -> None:
    class Leaf(ApiModel):
        free_text: str

    with pytest.raises(SchemaError, match=r"^M\.field\[\*\]\.freeText: unbounded string: use max_length=$"):
        structural_schema(model_of(Annotated[list[Leaf], Field(max_length=1)]))


def test_rules_of_a_class_are_on_its_object() -> None:
    class Ruled(ApiModel):
        rules = (Cel("self.a < self.b", "a must be below b", reason="FieldValueForbidden"),)
        a: Small
        b: Small

    assert structural_schema(model_of(Ruled))["properties"]["field"]["x-kubernetes-validations"] == [
        {"rule": "self.a < self.b", "message": "a must be below b", "reason": "FieldValueForbidden"},
    ]


def test_description_of_a_field_precedes_that_of_its_class() -> None:
    class Documented(ApiModel):
        own: Inner
        """Two lines
        become one.

        Paragraphs stay."""
        inherited: Inner | None = None

    fields = structural_schema(Documented)["properties"]
    assert fields["own"]["description"] == "Two lines become one.\n\nParagraphs stay."
    assert fields["inherited"]["description"] == "Docs of the class."


def test_omitted_fields_are_absent_and_not_checked() -> None:
    class Root(ApiModel):
        metadata: str
        name: Text

    assert structural_schema(Root, omit={"metadata"}) == {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 8}},
    }
