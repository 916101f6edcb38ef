"""The base of every API model: camelCase on the wire, frozen in memory, unknown fields ignored.

Unknown fields are ignored rather than refused, so that an operator reads what a newer one wrote; the apiserver
is what refuses a misspelt field (strict field validation).
"""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from gpufleet_api.markers import Cel
from gpufleet_common import timestamps

_ACRONYMS = {"mhz": "MHz", "mib": "MiB", "uid": "UID", "uuids": "UUIDs"}


def camel(name: str) -> str:
    """`min_free_memory_mib` -> `minFreeMemoryMiB`: camelCase, units and acronyms as Kubernetes writes them."""
    first, *rest = name.split("_")
    return first + "".join(_ACRONYMS.get(part, part.capitalize()) for part in rest)


class ApiModel(BaseModel):
    """A node of the API. `rules` are CEL rules on this object as a whole."""

    model_config = ConfigDict(
        alias_generator=camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,  # they become the descriptions that `kubectl explain` shows
    )

    rules: ClassVar[tuple[Cel, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Carry the class's CEL rules into its JSON schema."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.rules:
            extra: JsonDict = {"x-kubernetes-validations": [dict(rule.as_schema()) for rule in cls.rules]}
            cls.model_config["json_schema_extra"] = extra
            cls.model_rebuild(force=True)


Name = Annotated[str, Field(min_length=1, max_length=253)]
"""A DNS subdomain, such as a node's or a pod's name."""

Label = Annotated[str, Field(min_length=1, max_length=63)]
"""A DNS label, such as a container's name."""

Uuid = Annotated[str, Field(min_length=1, max_length=96)]
"""A device's UUID as NVML prints it, such as `GPU-8f4c...` or `MIG-...`."""

Text = Annotated[str, Field(max_length=1024)]
"""A sentence for people."""


def _moment(text: str) -> str:
    """The apiserver takes more than RFC 3339 for a date-time; who reads it later must not be the one to fail."""
    try:
        timestamps.parse(text)
    except ValueError:
        raise PydanticCustomError("timestamp", "must be a time such as 2026-01-02T03:04:05Z") from None
    return text


Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_moment)]
"""RFC 3339 in UTC; with microseconds where order within a second matters."""
