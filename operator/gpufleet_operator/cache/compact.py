"""Reduces the memory of decoded models: drops fields that no decision reads, and stores equal parts once.

The cache has hundreds of thousands of models. pydantic gives each of them a table of its own with the names of its
fields, and a set of those that were given; each text of a JSON document is an object of its own.
"""

import sys
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel

from gpufleet_api.condition import Condition
from gpufleet_api.telemetry.device import Device, HealthStatus
from gpufleet_api.workload import Devices, Requirements
from gpufleet_api.workload_placement import Placement, Weights
from gpufleet_api.workload_policies import Network, RunPolicy, UpdateStrategy
from gpufleet_operator.model.lenient_json import Json, as_list, as_map

M = TypeVar("M", bound=BaseModel)

UNREAD_OF_DEVICES = frozenset(
    {
        "architecture",
        "clocks",
        "ecc",
        "memoryTemperatureCelsius",
        "memoryUtilizationPercent",
        "migMode",
        "pageRetirementPending",
        "pciBusId",
        "rowRemap",
        "throttleReasons",
        "window",
    }
)
"""Fields of a device that only people and dashboards read."""
_UNREAD_NAMES = frozenset(name for name, field in Device.model_fields.items() if field.alias in UNREAD_OF_DEVICES)

_SMALL = frozenset({type(None), int, bool, float})
"""Types of most values. They are checked first, because the test for a model takes longer."""
_MAX_FIELD_SETS = 4096
_MAX_SHARED_KEYS = 30
"""Limit of CPython: a dict with more keys does not share its table."""
_MAX_SHARED = 8192
"""Maximum number of entries of each table of equal models or parts; a full table is cleared."""

_EQUAL_IN_MANY = frozenset(
    {Condition, Devices, HealthStatus, Network, Placement, Requirements, RunPolicy, UpdateStrategy, Weights}
)
"""Models that are equal in most objects."""

_FIELD_SETS: dict[frozenset[str], set[str]] = {}
_EMPTY: list[Any] = []
"""Takes the place of empty lists. Models are frozen, so nothing is ever added to it."""
_TABLES: dict[type[BaseModel], dict[str, Any]] = {}
_MODELS: dict[Any, BaseModel] = {}
_PARTS: dict[Any, Any] = {}
"""Parts of templates by their content: a key has the ids of the parts that it contains, which the table keeps alive."""


def without_unread(telemetry: Json) -> Json:
    """Returns a GPUTelemetry as JSON without what the operator does not read."""
    status = as_map(telemetry.get("status"))
    if not isinstance(status.get("devices"), list):
        return telemetry
    devices = [
        {key: value for key, value in device.items() if key not in UNREAD_OF_DEVICES}
        if isinstance(device, dict)
        else device
        for device in as_list(status.get("devices"))
    ]
    return {**telemetry, "status": {**status, "devices": devices}}


def compact(model: M) -> M:
    """Shares the parts of a frozen model with those of other models, and returns it, or one that equals it."""
    names = frozenset(model.__pydantic_fields_set__)
    given = _FIELD_SETS.get(names)
    if given is None:
        if len(_FIELD_SETS) >= _MAX_FIELD_SETS:
            _FIELD_SETS.clear()
        given = _FIELD_SETS[names] = set(names)
    object.__setattr__(model, "__pydantic_fields_set__", given)
    found = model.__dict__
    complete = type(model) is Device and not names.isdisjoint(_UNREAD_NAMES)
    values = {} if complete else _empty_table(type(model)).copy()
    for name in values or found:
        value = found[name]
        values[name] = value if type(value) in _SMALL else _shared(value)
    object.__setattr__(model, "__dict__", values)
    if type(model) not in _EQUAL_IN_MANY:
        return model
    if len(_MODELS) >= _MAX_SHARED:
        _MODELS.clear()
    key = (type(model), names, tuple(map(_token, values.values())))
    return _MODELS.setdefault(key, model)  # type: ignore[return-value]  # the key has the type


def _empty_table(kind: type[BaseModel]) -> dict[str, Any]:
    """Returns a dict with the fields of a model. Its copies share the table of their keys.

    CPython shares the keys of the attributes of an object with those of the other objects of its class, and a copy of
    such a dict does so too. pydantic replaces the dict of each model by one that does not.
    """
    table = _TABLES.get(kind)
    if table is None:
        fields = type("Fields", (), {})
        holder = fields()
        for name in kind.model_fields:
            if kind is not Device or name not in _UNREAD_NAMES:
                setattr(holder, name, None)
        for _ in range(_MAX_SHARED_KEYS):
            fields()  # with each object, CPython reserves less space for keys that are still to come
        table = _TABLES[kind] = vars(holder)
    return table


def _shared(value: Any) -> Any:
    """Returns a value that is not small, or one that equals it."""
    kind: type = type(value)
    if kind is str:
        return sys.intern(value)
    if kind is list:
        return [item if type(item) in _SMALL else _shared(item) for item in value] if value else _EMPTY
    if kind is dict:
        return _shared_part(value)
    return compact(value) if _is_model(kind) else value


@cache
def _is_model(kind: type) -> bool:
    """Returns whether values of a type are models. `isinstance` takes a multiple of the time."""
    return issubclass(kind, BaseModel)


def _shared_part(value: Any) -> Any:
    """Returns a part of a free-form document that equals the given one."""
    kind = type(value)
    if kind is str:
        return sys.intern(value)
    key: Any
    if kind is dict:
        part: Any = {sys.intern(name): _shared_part(each) for name, each in value.items()}
        key = (*part, *map(_token, part.values()))
    elif kind is list:
        part = [_shared_part(each) for each in value]
        key = (None, *map(_token, part))
    else:
        return value
    if len(_PARTS) >= _MAX_SHARED:
        _PARTS.clear()
    return _PARTS.setdefault(key, part)


def _token(value: Any) -> Any:
    """Returns the key of a value: 1, 1.0 and True differ, and shared parts are compared by id."""
    kind: type = type(value)
    if kind is str:
        return value
    return (id(value),) if kind in (dict, list) or _is_model(kind) else (kind, value)
