"""The base of every API model: camelCase in JSON, frozen in memory, unknown fields ignored.

Unknown fields are ignored so that an operator can read what a newer one wrote. The apiserver rejects misspelled fields
(strict field validation).
"""

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

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
        use_attribute_docstrings=True,  # the descriptions that `kubectl explain` shows
    )

    rules: ClassVar[tuple[Cel, ...]] = ()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Returns the model itself: nothing changes it, and pydantic copies a default for each object that lacks it."""
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Adds the class's CEL rules to its JSON schema."""
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
