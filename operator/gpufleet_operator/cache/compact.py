"""Makes decoded models small: what no decision reads is dropped, and what is equal is stored once.

The cache has hundreds of thousands of models. pydantic gives each of them a set of its own with the names of the
fields that were given, and each text of a JSON document is an object of its own.
"""

import sys
from typing import Any, TypeVar

from pydantic import BaseModel

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

_MAX_FIELD_SETS = 4096
_FIELD_SETS: dict[frozenset[str], set[str]] = {}
_EMPTY: list[Any] = []
"""Takes the place of empty lists. Models are frozen, so nothing is ever added to it."""


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
    """Shares the parts of a frozen model with those of other models, and returns it."""
    _share(model)
    return model


def _share(model: BaseModel) -> None:
    names = frozenset(model.__pydantic_fields_set__)
    if len(_FIELD_SETS) >= _MAX_FIELD_SETS:
        _FIELD_SETS.clear()
    object.__setattr__(model, "__pydantic_fields_set__", _FIELD_SETS.setdefault(names, set(names)))
    values = model.__dict__
    for name, value in values.items():
        if type(value) is str:
            values[name] = sys.intern(value)
        elif isinstance(value, BaseModel):
            _share(value)
        elif type(value) is list:
            values[name] = _shared_list(value)


def _shared_list(items: list[Any]) -> list[Any]:
    if not items:
        return _EMPTY
    for index, item in enumerate(items):
        if type(item) is str:
            items[index] = sys.intern(item)
        elif isinstance(item, BaseModel):
            _share(item)
    return items
