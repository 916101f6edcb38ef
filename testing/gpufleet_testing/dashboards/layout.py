"""Panels and dashboards as Grafana's JSON model. Panels are placed from left to right, in rows of 24 columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

JsonObject = dict[str, Any]

COLUMNS = 24
SCHEMA_VERSION = 41
TAG = "gpufleet"
RUNBOOKS = "docs/operations/runbooks"
"""The chart replaces it by `metrics.runbookURL`."""

_SOURCE: Mapping[str, str] = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel.

    Args:
        expr: PromQL.
        legend: Name of its series, such as `{{node}}`; in a table, the title of its column.
        unit: Of its column in a table, if it is not that of the panel.
    """

    expr: str
    legend: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `thresholds` are values and the colors from there on; below the first, the color is green."""

    title: str
    kind: str
    description: str
    targets: tuple[Target, ...]
    unit: str = "short"
    width: int = 12
    height: int = 8
    thresholds: tuple[tuple[float, str], ...] = ()
    maximum: float | None = None
    columns: tuple[str, ...] = ()
    """Of a table: the labels that are shown, in this order."""
    options: Mapping[str, Any] = field(default_factory=dict)
    runbook: str = ""
    """Page and section below the folder of runbooks."""


class PanelFields(TypedDict, total=False):
    """Fields of a panel that its builder passes on."""

    unit: str
    thresholds: tuple[tuple[float, str], ...]
    maximum: float | None
    options: Mapping[str, Any]
    runbook: str


class WidePanelFields(PanelFields, total=False):
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A selection at the top of a dashboard: the values of a label of a metric."""

    name: str
    label: str
    query: str
    multi: bool = True


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. `rows` are headings with their panels."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]

    @property
    def panels(self) -> list[Panel]:
        return [panel for _, panels in self.rows for panel in panels]


def stat(title: str, description: str, expr: str, *, width: int = 4, **fields: Unpack[PanelFields]) -> Panel:
    """Builds one large number."""
    return Panel(title, "stat", description, (Target(expr),), width=width, height=4, **fields)


def lines(title: str, description: str, *targets: Target, **fields: Unpack[WidePanelFields]) -> Panel:
    """Builds a diagram over time."""
    return Panel(title, "timeseries", description, targets, **fields)


def table(
    title: str, description: str, columns: Sequence[str], *targets: Target, **fields: Unpack[WidePanelFields]
) -> Panel:
    """Builds a table with one row for each set of labels, and one column for each query."""
    return Panel(title, "table", description, targets, columns=tuple(columns), **fields)


def render(dashboard: Dashboard) -> JsonObject:
    """Returns the dashboard as Grafana's JSON model."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": TAG,
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": list(_place(dashboard.rows)),
    }


def _place(rows: Iterable[tuple[str, tuple[Panel, ...]]]) -> Iterable[JsonObject]:
    number, top = 1, 0
    for title, panels in rows:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height})
            number, left, height = number + 1, left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel, number: int, at: JsonObject) -> JsonObject:
    runbook = f"\n\nRunbook: {RUNBOOKS}/{panel.runbook}" if panel.runbook else ""
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description + runbook,
        "datasource": dict(_SOURCE),
        "gridPos": at,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(map(_column_unit, _with_units(panel)))},
        "options": _options(panel),
        "transformations": _transformations(panel),
        "targets": [_target(panel, letter, target) for letter, target in _lettered(panel)],
    }


def _defaults(panel: Panel) -> JsonObject:
    steps: list[JsonObject] = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": value} for value, color in panel.thresholds]
    bounds = {} if panel.maximum is None else {"min": 0, "max": panel.maximum}
    custom: JsonObject = {}
    if panel.kind == "timeseries":
        custom = {"custom": {"thresholdsStyle": {"mode": "line" if panel.thresholds else "off"}, "showPoints": "never"}}
    return {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}, **bounds, **custom}


def _with_units(panel: Panel) -> list[Target]:
    return [target for target in panel.targets if target.unit]


def _column_unit(target: Target) -> JsonObject:
    matcher = {"id": "byName", "options": target.legend}
    return {"matcher": matcher, "properties": [{"id": "unit", "value": target.unit}]}


def _options(panel: Panel) -> JsonObject:
    match panel.kind:
        case "stat":
            usual: JsonObject = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
        case "timeseries":
            usual = {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case _:
            usual = {"showHeader": True}
    return {**usual, **panel.options}


def _transformations(panel: Panel) -> list[JsonObject]:
    if panel.kind != "table":
        return []
    names = {f"Value #{letter}": target.legend for letter, target in _lettered(panel)}
    if len(panel.targets) == 1:
        names = {"Value": panel.targets[0].legend}
    order = {name: index for index, name in enumerate((*panel.columns, *names))}
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": [*panel.columns, *names]}}},
        {"id": "organize", "options": {"indexByName": order, "renameByName": names, "excludeByName": {}}},
    ]


def _lettered(panel: Panel) -> Iterable[tuple[str, Target]]:
    return zip("ABCDEFGH", panel.targets, strict=False)


def _target(panel: Panel, letter: str, target: Target) -> JsonObject:
    shown: JsonObject = {"refId": letter, "datasource": dict(_SOURCE), "expr": target.expr}
    if panel.kind == "table":
        return {**shown, "format": "table", "instant": True}
    return {**shown, "legendFormat": target.legend or "__auto", "range": True}


def _datasource() -> JsonObject:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}


def _variable(variable: Variable) -> JsonObject:
    everything: JsonObject = {
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": dict(_SOURCE),
        "query": {"query": variable.query, "refId": variable.name},
        "definition": variable.query,
        "multi": variable.multi,
        "refresh": 2,
        "sort": 1,
        **(everything if variable.multi else {"includeAll": False, "current": {}}),
    }
