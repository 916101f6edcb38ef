"""The dashboards and alerts of the chart query what agent and operator export."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from gpufleet_api.generate import ROOT
from gpufleet_testing.dashboards.generate import DASHBOARDS, FOLDER, files
from gpufleet_testing.dashboards.layout import RUNBOOKS, Panel
from gpufleet_testing.promql import grouping_labels, selectors
from gpufleet_testing.reference import exported

BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(text) for path, text in files().items()}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "charts/gpufleet/files/alerts/gpufleet.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {
    *("GPUUnhealthy", "XidCritical", "RowRemapPending", "MemoryOveruse", "HeldButIdle"),
    *("AgentDown", "TelemetryStale", "PluginNotRegistered", "HighRejectionRate", "FaultFileNotCurrent"),
    *("OperatorDown", "OperatorPassStuck", "TelemetryOutage", "ReadsDenied", "UnexpectedErrors"),
    *("WorkloadUnplaced", "GatedPodsWithoutWorkload", "DeviceMismatch"),
}

TARGET_LABELS = frozenset({"cluster", "job", "instance", "namespace", "pod", "container", "node"})
"""Labels that Prometheus adds, with the ServiceMonitors of the chart or for all series."""
FROM_PROMETHEUS = {"up": TARGET_LABELS}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield f"{name}: {panel['title']}", panel


def expressions() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for name, panel in panels():
        found |= {f"{name} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


def known() -> dict[str, frozenset[str]]:
    return {name: labels | TARGET_LABELS for name, labels in exported.series().items()} | FROM_PROMETHEUS


def test_files_of_the_chart_are_those_that_the_code_writes() -> None:
    assert {path: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == files(), "run `make docs`"


def test_expressions_use_series_and_labels_that_are_exported() -> None:
    series = known()
    wrong = {
        where: (selector.metric, sorted(selector.labels - series.get(selector.metric, frozenset())))
        for where, expression in expressions().items()
        for selector in selectors(expression)
        if not selector.labels <= series.get(selector.metric, frozenset({"missing"})) or selector.metric not in series
    }
    assert wrong == {}
    assert len({s.metric for expression in expressions().values() for s in selectors(expression)}) > 60


def test_grouping_uses_labels_of_the_selected_series() -> None:
    series = known()
    for where, expression in expressions().items():
        labels = frozenset[str]().union(*(series[s.metric] for s in selectors(expression)))
        assert grouping_labels(expression) <= labels, where


def test_counters_are_queried_by_rate_or_increase() -> None:
    for where, expression in expressions().items():
        for counter in re.findall(r"(?:gpufleet|process)_\w+_(?:total|count|bucket)\b", expression):
            assert re.search(rf"(rate|increase)\s*\({counter}", expression), where


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_overlap_or_share_an_id(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in BOARDS[name]["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", BOARDS)
def test_variables_of_queries_are_declared_and_used(name: str) -> None:
    board = BOARDS[name]
    declared = {variable["name"] for variable in board["templating"]["list"]}
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    lookups = [variable["definition"] for variable in board["templating"]["list"] if "definition" in variable]
    used = {word for text in (*queries, *lookups) for word in re.findall(r"\$([a-z]+)", text)}
    assert used == declared - {"datasource"}


def test_panels_of_a_dashboard_have_different_titles() -> None:
    names = [name for name, _ in panels()]
    assert {name for name in names if names.count(name) > 1} == set()


def test_every_panel_has_a_description() -> None:
    assert [name for name, panel in panels() if not panel["description"].strip()] == []


def test_tables_show_labels_that_their_queries_return() -> None:
    for board in DASHBOARDS:
        for panel in board.panels:
            if panel.kind == "table":
                assert set(panel.columns) <= _labels(panel), panel.title


def _labels(panel: Panel) -> set[str]:
    return set.intersection(*(grouping_labels(target.expr) for target in panel.targets))


def test_alerts_are_those_of_the_documentation() -> None:
    assert {rule["alert"] for rule in RULES} == ALERTS
    page = (ROOT / "docs/operations/monitoring.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| \[`(\w+)`\]\(runbooks/([\w.#-]+)\) \|", page, re.MULTILINE))
    prefix = f"{RUNBOOKS}/"
    assert table == {rule["alert"]: rule["annotations"]["runbook_url"].removeprefix(prefix) for rule in RULES}


def test_runbooks_of_alerts_and_panels_exist() -> None:
    named = [rule["annotations"]["runbook_url"].removeprefix(f"{RUNBOOKS}/") for rule in RULES]
    named += [panel.runbook for board in DASHBOARDS for panel in board.panels if panel.runbook]
    for page, _, section in (name.partition("#") for name in named):
        text = (ROOT / RUNBOOKS / page).read_text(encoding="utf-8")
        headings = [heading.lower() for heading in re.findall(r"^## (\w+)$", text, re.MULTILINE)]
        assert section in headings, f"{page}#{section}"


def test_alerts_have_severity_summary_and_description() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["labels"]["product"] == "gpufleet"
        assert rule["annotations"]["summary"].strip()
        assert rule["annotations"]["description"].strip()
