"""Events of an object, oldest first."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gpufleet_cli.freshness import time_of
from gpufleet_operator.model.lenient_json import Json, as_map, number, text


@dataclass(frozen=True, slots=True)
class EventView:
    """An event. `at` is its last occurrence."""

    kind: str
    name: str
    type: str
    reason: str
    message: str
    at: datetime | None
    count: int = 1


def events_of(events: Iterable[Json], objects: Iterable[tuple[str, str]]) -> list[EventView]:
    """Returns the events of objects, which are given as kind and name."""
    wanted = set(objects)
    found = [one for one in map(_event, events) if (one.kind, one.name) in wanted]
    return sorted(found, key=lambda e: (e.at is not None, e.at))


def _event(body: Json) -> EventView:
    about, series = as_map(body.get("involvedObject")), as_map(body.get("series"))
    times = (series.get("lastObservedTime"), body.get("lastTimestamp"), body.get("eventTime"))
    return EventView(
        kind=text(about.get("kind")),
        name=text(about.get("name")),
        type=text(body.get("type")),
        reason=text(body.get("reason")),
        message=text(body.get("message")),
        at=next((moment for value in times if (moment := time_of(value)) is not None), None),
        count=max(number(series.get("count")), number(body.get("count")), 1),
    )
