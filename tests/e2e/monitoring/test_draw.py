"""Dashboards as images."""

from collections.abc import Mapping
from xml.etree.ElementTree import fromstring

import pytest

from gpufleet_e2e.monitoring.draw import PanelData, dashboard_svg, number
from gpufleet_e2e.monitoring.panels import BoardPanel, panels
from gpufleet_testing.dashboards.generate import files

DATA: Mapping[str, PanelData] = {
    "stat": PanelData({"value": [(0, 1), (1, 7)]}),
    "timeseries": PanelData({"<node-1>": [(0, 1), (1, 2)], "node-2": [(0, 0), (1, 1)]}),
    "table": PanelData({}, [["model", "GPUs"], ["NVIDIA H100", "16"]]),
}


def texts(image: str) -> list[str]:
    root = fromstring(image)  # noqa: S314 - made by this project
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", sorted(path.name for path in files()))
def test_every_panel_is_drawn_with_its_data(name: str) -> None:
    board = {path.name: text for path, text in files().items() if path.name == name}
    shown = list(panels(board, {}))
    found = texts(dashboard_svg(shown, lambda panel: DATA[panel.kind]))
    assert {panel.title for panel in shown} <= set(found)
    assert found.count("NVIDIA H100") == sum(panel.kind == "table" for panel in shown)
    assert found.count("<node-1>") == sum(panel.kind == "timeseries" for panel in shown)


def test_panel_without_data_says_so() -> None:
    panel = BoardPanel("Fleet", "Faults", "table", "short", {}, {}, grid=(0, 0, 12, 8))
    assert texts(dashboard_svg([panel], lambda _: PanelData({}))) == ["Faults", "No data"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2**31, "bytes", "2 GiB"),
        (90, "s", "1.5 min"),
        (0.25, "percentunit", "25 %"),
        (16, "short", "16"),
        (0, "s", "0 ms"),
    ],
)
def test_value_has_its_unit(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text
