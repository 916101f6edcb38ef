"""The base of every API model: camelCase in JSON, frozen in memory, unknown fields ignored.

Unknown fields are ignored so that an operator can read what a newer one wrote. The apiserver rejects misspelled fields
(strict field validation).
"""

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from gpufleet_api.markers import Cel
from gpufleet_api.names import MAX_DEVICES_PER_REPLICA
from gpufleet_common import timestamps

_ACRONYMS = {"dns": "DNS", "mhz": "MHz", "mib": "MiB", "uid": "UID", "uuids": "UUIDs"}


def camel(name: str) -> str:
    """Returns `minFreeMemoryMiB` for `min_free_memory_mib`: camelCase, units and acronyms as Kubernetes writes them."""
    first, *rest = name.split("_")
    return first + "".join(_ACRONYMS.get(part, part.capitalize()) for part in rest)


class ApiModel(BaseModel):
    """Base of the API's objects. `rules` are CEL rules on the object as a whole."""

    model_config = ConfigDict(
        alias_generator=camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
    )

    rules: ClassVar[tuple[Cel, ...]] = ()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Returns the model itself: nothing changes it, and pydantic copies a default for each object that lacks it."""
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Adds the descriptions that `kubectl explain` shows, and the class's CEL rules.

        pydantic can read the descriptions itself, but does it whenever a program that needs no schema starts.
        """
        found = handler(schema)
        target = handler.resolve_ref_schema(found)
        for name, description in _field_descriptions(cls).items():
            target["properties"][camel(name)]["description"] = description
        if cls.rules:
            target["x-kubernetes-validations"] = [dict(rule.as_schema()) for rule in cls.rules]
        return found


def _field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Returns the docstrings below the fields of a model, by field."""
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if parent is ApiModel or not issubclass(parent, ApiModel):
            continue
        try:
            source = inspect.getsource(parent)
        except OSError:  # made at run time
            continue
        (definition,) = ast.parse(textwrap.dedent(source)).body
        assert isinstance(definition, ast.ClassDef)  # noqa: S101 - it is the source of a class
        for statement, following in pairwise(definition.body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
    return {name: text for name, text in found.items() if name in model.model_fields}


Name = Annotated[str, Field(min_length=1, max_length=253)]
"""A DNS subdomain, such as a node's or a pod's name."""

Label = Annotated[str, Field(min_length=1, max_length=63)]
"""A DNS label, such as a container's name."""

Uuid = Annotated[str, Field(min_length=1, max_length=96)]
"""A device's UUID as NVML prints it, such as `GPU-8f4c...` or `MIG-...`."""

Text = Annotated[str, Field(max_length=1024)]
"""A message for people."""


def _moment(text: str) -> str:
    # The apiserver accepts more than RFC 3339 as date-time: reject it here, before a later reader fails on it.
    try:
        timestamps.parse(text)
    except ValueError:
        raise PydanticCustomError("timestamp", "must be an RFC 3339 time, such as 2026-01-02T03:04:05Z") from None
    return text


Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""A duration of at least one second."""

Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_moment)]
"""An RFC 3339 time in UTC, with microseconds where the order within a second matters."""


class ContainerDevices(ApiModel):
    """Devices of one container of a pod."""

    name: Label
    """Name of the container: an app container, or a sidecar."""
    count: Annotated[int, Field(ge=1, le=MAX_DEVICES_PER_REPLICA)] = 1
    """Number of devices of the container, 1 to 16. Defaults to 1."""


class MovedFrom(ApiModel):
    """The device that a pod leaves because it runs out of memory."""

    pod_uid: Annotated[str, Field(min_length=1, max_length=64)]
    """UID of the pod that is evicted."""
    node: Name
    """Node of the device."""
    device: Uuid
    """UUID of the device."""
    message: Text
    """Why the pod is moved, for people."""


class ObjectMeta(ApiModel):
    """The fields of metadata that gpufleet reads."""

    name: Name
    namespace: Label | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
