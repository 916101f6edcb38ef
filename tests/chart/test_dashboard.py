"""The dashboard queries series that exist."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BOARD: dict[str, Any] = json.loads(
    (ROOT / "charts/gpufleet/files/dashboards/gpufleet.json").read_text(encoding="utf-8")
)

SERIES = r"(?:DCGM_FI|gpufleet)_\w+"


def documented() -> set[str]:
    """Returns the metrics of docs/reference/metrics.md, which is generated from the agent."""
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    return set(re.findall(rf"^\| `({SERIES})`", page, re.MULTILINE))


def queries() -> list[str]:
    return [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]


def test_queries_use_documented_series() -> None:
    named = {name for query in queries() for name in re.findall(SERIES, query)}
    assert len(named) > 20
    assert named - documented() == set()


def test_counters_are_queried_by_rate_or_increase() -> None:
    for query in queries():
        for counter in re.findall(r"gpufleet_agent_\w+_total", query):
            assert re.search(rf"(rate|increase)\({counter}", query), query


def test_panels_do_not_overlap_or_share_an_id() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(numbers) == len(set(numbers))
