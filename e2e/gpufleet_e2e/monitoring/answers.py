"""What Prometheus answers to the queries of a panel, as names, times and values."""

import re
from time import time

from gpufleet_e2e.monitoring.draw import PanelData, number
from gpufleet_e2e.monitoring.panels import BoardPanel
from gpufleet_e2e.support.programs.prometheus import Prometheus

_STEP_SECONDS = 1


def panel_data(server: Prometheus, panel: BoardPanel, seconds: float) -> PanelData:
    """Asks for the data of a panel: of a table now, else of the last seconds."""
    if panel.kind == "table":
        return PanelData({}, _rows(server, panel))
    now = time()
    found = {}
    for letter, query in panel.queries.items():
        for one in server.values(query, now - seconds, now, _STEP_SECONDS):
            name = _named(panel.legends[letter], one["metric"])
            found[name] = [(float(moment), float(value)) for moment, value in one["values"]]
    return PanelData(found)


def _rows(server: Prometheus, panel: BoardPanel) -> list[list[str]]:
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for letter, query in panel.queries.items():
        for key, value in server.by(query, *panel.columns).items():
            rows.setdefault(key, {})[letter] = number(value, panel.units.get(letter, panel.unit))
    header = [*panel.columns, *panel.legends.values()]
    return [header, *([*key, *(cells.get(letter, "") for letter in panel.queries)] for key, cells in rows.items())]


def _named(legend: str, labels: dict[str, str]) -> str:
    if legend == "__auto":
        return ", ".join(labels.values()) or "value"
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
