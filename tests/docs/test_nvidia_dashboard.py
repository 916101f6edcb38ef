"""The page on metrics has a result for each panel of NVIDIA's dashboard."""

import re
from pathlib import Path

from gpufleet_agent.metrics.device_collector import DCGM_FIELDS


def test_every_panel_of_nvidias_dashboard_is_filled_or_explained() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text(encoding="utf-8")
    section = page.partition("### NVIDIA's dashboard")[2].partition("\n### ")[0]
    panels = re.findall(r"^\| (.+) \((\d+)\) \| `(\w+)` \| (\w+)", section, re.MULTILINE)
    assert {number for _, number, _, _ in panels} == {"2", "4", "6", "10", "12", "14", "16", "18"}
    exported = {field.name for field in DCGM_FIELDS}
    assert {name: result for name, _, series, result in panels if (series in exported) is not (result == "right")} == {}
