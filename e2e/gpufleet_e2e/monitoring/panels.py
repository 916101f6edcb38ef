"""The panels of the chart's dashboards, and their queries with the variables filled in."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

RATE_INTERVAL = "10s"
"""For a scrape interval of two seconds."""


@dataclass(frozen=True, slots=True)
class BoardPanel:
    """A panel or the heading of a row; `queries` are its expressions by letter, as Grafana sends them."""

    board: str
    title: str
    kind: str
    unit: str
    queries: Mapping[str, str]
    legends: Mapping[str, str]
    units: Mapping[str, str] = field(default_factory=dict)
    """Of the columns of a table, by letter, if they differ from that of the panel."""
    columns: tuple[str, ...] = ()
    """Labels that a table shows."""
    grid: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, width and height in columns and rows of Grafana."""

    @property
    def name(self) -> str:
        return f"{self.board}: {self.title}"


def panels(dashboards: Mapping[str, str], variables: Mapping[str, str]) -> Iterator[BoardPanel]:
    """Yields the panels of dashboards, and headings of rows.

    Args:
        dashboards: JSON by file name.
        variables: Values of variables; those that are missing select everything.
    """
    for text in dashboards.values():
        board = json.loads(text)
        names = [variable["name"] for variable in board["templating"]["list"]]
        values = {name: variables.get(name, ".*") for name in names} | {"__rate_interval": RATE_INTERVAL}
        for panel in board["panels"]:
            yield _panel(board["title"], panel, values)


def _panel(board: str, panel: Mapping[str, Any], values: Mapping[str, str]) -> BoardPanel:
    targets = panel.get("targets", ())
    names = {target["refId"]: _legend(panel, target["refId"]) for target in targets}
    at = panel["gridPos"]
    return BoardPanel(
        board=board.removeprefix("gpufleet / "),
        title=panel["title"],
        kind=panel["type"],
        unit="" if panel["type"] == "row" else panel["fieldConfig"]["defaults"]["unit"],
        queries={target["refId"]: _filled(target["expr"], values) for target in targets},
        legends=names,
        units=_units(panel, names),
        columns=_columns(panel),
        grid=(at["x"], at["y"], at["w"], at["h"]),
    )


def _legend(panel: Mapping[str, Any], letter: str) -> str:
    """Returns the name of a query: the template of its legend, or the title of its column."""
    for step in panel["transformations"]:
        if step["id"] == "organize":
            names: dict[str, str] = step["options"]["renameByName"]
            return names.get(f"Value #{letter}", names.get("Value", ""))
    return str(next(target["legendFormat"] for target in panel["targets"] if target["refId"] == letter))


def _units(panel: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    rules = panel.get("fieldConfig", {}).get("overrides", ())
    units = {rule["matcher"]["options"]: rule["properties"][0]["value"] for rule in rules}
    return {letter: units[name] for letter, name in names.items() if name in units}


def _columns(panel: Mapping[str, Any]) -> tuple[str, ...]:
    found = [step for step in panel.get("transformations", ()) if step["id"] == "organize"]
    names = [name for step in found for name in step["options"]["indexByName"]]
    return tuple(name for name in names if not name.startswith("Value"))


def _filled(expression: str, values: Mapping[str, str]) -> str:
    # Longer names first: one name may be the beginning of another.
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(f"${name}", values[name])
    return expression
