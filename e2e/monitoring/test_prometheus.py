"""A real Prometheus scrapes agents and operator as the chart's ServiceMonitors say; panels and alerts are right."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_e2e.monitoring.alert_cases import CASES
from gpufleet_e2e.monitoring.answers import panel_data
from gpufleet_e2e.monitoring.draw import dashboard_svg
from gpufleet_e2e.monitoring.panels import BoardPanel, panels
from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import TELEMETRY, JsonObject, pods
from gpufleet_e2e.support.chart import Chart
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE, RELEASE
from gpufleet_e2e.support.manifests import GATE, gpuworkload, plain_pod
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.prometheus import Prometheus, prometheus
from gpufleet_e2e.support.programs.scrape_config import discovered_targets, scrape_config
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_simgpu.model import SimProcess
from gpufleet_testing.promql import selectors

SOON_SECONDS = 45
"""Overuse is noticed after two readings of the processes, which are 5 s apart."""
WAITING = "gpufleet.dev/waiting-for"
IMAGE_SECONDS = 60
UTILIZATION = 70
PROMISED_MIB, OVER_MIB = 2000, 3000
FAULT_SERIES = {"gpufleet_agent_device_warning", "gpufleet_agent_device_fault", "gpufleet_operator_denied_reads"}
WITHOUT_DATA = {
    "Fleet: Warnings",
    "Fleet: Cordoned GPUs by node",
    "Device: Faults and warnings",
    "Control plane: Agents that need attention",
    "Control plane: Denied reads",
}
"""Panels that show something only while something is wrong."""
MAY_LACK_DATA = {
    "Device: Events",
    "Device: Throttle reasons",
    "Queue: Pods removed by the operator",
    "Queue: Rejected allocations",
    "Control plane: Failed PodResources lists",
    "Control plane: Dropped samples",
}
"""Panels of counters that exist since their first event, which other tests may have caused."""


@pytest.fixture
def chart(fleet: Fleet) -> dict[str, list[JsonObject]]:
    """The chart's objects, by kind."""
    return rendered(fleet, {"metrics.serviceMonitor.interval": "2s"})


def rendered(fleet: Fleet, values: Mapping[str, object]) -> dict[str, list[JsonObject]]:
    """Renders the chart with its monitoring objects; returns all objects by kind."""
    enabled = {f"metrics.{kind}.enabled": True for kind in ("serviceMonitor", "prometheusRule", "dashboard")}
    found: dict[str, list[JsonObject]] = {}
    for (kind, _), one in Chart(fleet.cluster).render({**enabled, **values}).items():
        found.setdefault(kind, []).append(one)
    return found


@pytest.fixture
def server(fleet: Fleet, chart: dict[str, list[JsonObject]], tmp_path: Path) -> Iterator[Prometheus]:
    targets = discovered_targets(fleet.api, NAMESPACE)
    scrapes = [scrape_config(monitor, targets) for monitor in chart["ServiceMonitor"]]
    (rules,) = chart["PrometheusRule"]
    with prometheus(tmp_path, scrapes, rules["spec"]) as found:
        yield found


@pytest.fixture
def faulty(fleet: Fleet) -> Iterator[str]:
    """A GPU whose fault is acknowledged at the end."""
    node = fleet.nodes[1]
    yield fleet.gpus[node].uuids[7]
    now = fleet.telemetry(node)["status"]["observedAt"]
    fleet.api.patch(f"{TELEMETRY}/{node}", {"metadata": {"annotations": {"gpufleet.dev/acknowledged-faults": now}}})


def test_panels_and_alerts_show_what_the_cluster_has(
    namespace: TestNamespace, fleet: Fleet, chart: dict[str, list[JsonObject]], server: Prometheus, faulty: str
) -> None:
    """Mechanism: whole and shared GPUs are held, one GPU has an XID, a workload and a pod wait for ever."""
    node = fleet.nodes[0]
    whole, shared = fleet.gpus[node].uuids[2:4], fleet.gpus[node].uuids[4]
    share = {"mode": "Shared", "memoryMiB": PROMISED_MIB}
    namespace.apply(
        gpuworkload("whole", count=2, uuids=whole),
        *(gpuworkload(f"share-{index}", devices=share, uuids=(shared,)) for index in range(2)),
        gpuworkload("too-large", count=9, node=fleet.nodes[1]),
    )
    orphan = plain_pod("orphan", count=1, labels={"gpufleet.dev/workload": "missing"}, schedulingGates=[{"name": GATE}])
    fleet.api.create(pods(namespace.name), orphan)
    fleet.gpus[node].report(whole[0], utilization_percent=UTILIZATION)
    fleet.gpus[fleet.nodes[1]].xid(faulty, 79)
    namespace.verify("whole", "share-0", "share-1")
    namespace.wait_condition("too-large", "Placed", "False", "NoDevicesAvailable")
    pid, _ = eventually(partial(fleet.processes, node, namespace.pod("share-0")), within=30)
    process = SimProcess(pid, OVER_MIB, sm_percent=40)
    fleet.gpus[node].report(shared, processes=(process,), memory_used_mib=OVER_MIB)

    variables = {"device": shared, "namespace": namespace.name}
    (config,) = chart["ConfigMap"]
    everything = list(panels(config["data"], variables))
    shown = {panel.name: panel for panel in everything if panel.kind != "row"}
    eventually(lambda: _targets_are_up(server), within=SOON_SECONDS)
    eventually(lambda: _fleet_is_right(server, shown, fleet), within=SOON_SECONDS)
    eventually(lambda: _tenants_are_right(server, shown, namespace, whole), within=SOON_SECONDS)
    eventually(lambda: _queue_is_right(server, shown, namespace), within=SOON_SECONDS)
    eventually(lambda: _device_is_right(server, shown, fleet, shared), within=SOON_SECONDS)
    eventually(lambda: _control_plane_is_right(server, shown, fleet), within=SOON_SECONDS)
    eventually(lambda: _every_panel_has_data(server, shown), within=SOON_SECONDS)
    eventually(lambda: _alert_fires(server, "XidCritical", UUID=faulty, hostname=fleet.nodes[1]), within=SOON_SECONDS)
    broken = [rule["name"] for rule in server.rules() if rule["health"] != "ok"]
    assert broken == [], broken
    _cases_have_scraped_labels(server)
    if folder := os.environ.get("GPUFLEET_DASHBOARD_IMAGES"):
        _draw(server, everything, Path(folder))


def test_alerts_and_dashboards_follow_the_release_and_the_runbooks(fleet: Fleet) -> None:
    """Mechanism: the chart replaces names in files that Helm does not render."""
    runbooks = "https://runbooks.example.com/"
    found = rendered(fleet, {"fullnameOverride": "gpus", "metrics.runbookURL": runbooks})
    (rule,), (config,) = found["PrometheusRule"], found["ConfigMap"]
    rules = {one["alert"]: one for group in rule["spec"]["groups"] for one in group["rules"]}
    assert rules["AgentDown"]["expr"] == 'up{job=~"(.+/)?gpus-agent.*"} == 0'
    link = rules["XidCritical"]["annotations"]["runbook_url"]
    assert link == "https://runbooks.example.com/devices.md#xidcritical"
    assert len(config["data"]) == 5
    text = "".join(config["data"].values())
    assert "Runbook: https://runbooks.example.com/agents.md#agentdown" in text
    assert "gpus-operator.*" in text
    assert "gpufleet-agent" not in text


def _draw(server: Prometheus, everything: list[BoardPanel], folder: Path) -> None:
    for name in {panel.board for panel in everything}:
        board = [panel for panel in everything if panel.board == name]
        image = dashboard_svg(board, lambda panel: panel_data(server, panel, IMAGE_SECONDS))
        (folder / f"{name.lower().replace(' ', '-')}.svg").write_text(image, encoding="utf-8")


def _targets_are_up(server: Prometheus) -> None:
    found = Counter(target["labels"]["job"] for target in server.targets() if target["health"] == "up")
    assert found == {f"{RELEASE}-agent-metrics": 2, f"{RELEASE}-operator-metrics": 1}, server.targets()


def _fleet_is_right(server: Prometheus, shown: dict[str, BoardPanel], fleet: Fleet) -> None:
    telemetry = [fleet.telemetry(node) for node in fleet.nodes]
    devices = [device for one in telemetry for device in one["status"]["devices"]]
    healthy = [device for device in devices if device["health"]["state"] == "Healthy"]
    held = [device for device in devices if device.get("allocatedTo")]
    expected = {
        "GPUs": len(devices),
        "Free GPUs": sum(one["status"]["summary"]["free"] for one in telemetry),
        "GPUs in use": len(held),
        "Unhealthy GPUs": len(devices) - len(healthy),
        "Out of service": 0,
        "GPUs on unusable nodes": 0,
    }
    assert {title: server.number(shown[f"Fleet: {title}"].queries["A"]) for title in expected} == expected
    models = Counter((device["model"],) for device in devices)
    assert server.by(shown["Fleet: GPUs by model"].queries["A"], "model") == models
    free = {one["metadata"]["name"]: one["status"]["summary"]["free"] for one in telemetry}
    by_node = server.by(shown["Fleet: Free GPUs by node"].queries["A"], "node")
    assert by_node == {(name,): number for name, number in free.items() if number}
    faults = server.by(shown["Fleet: Faults"].queries["A"], "UUID", "code")
    assert faults == {
        (device["uuid"], reason["code"]): 1 for device in devices for reason in device["health"].get("reasons", ())
    }


def _tenants_are_right(
    server: Prometheus, shown: dict[str, BoardPanel], namespace: TestNamespace, whole: tuple[str, ...]
) -> None:
    listed = json.loads(namespace.fleet.cluster.kubectl("get", "gputelemetries", "-o", "json").stdout)["items"]
    devices = [device for one in listed for device in one["status"]["devices"]]
    holders = [holder["namespace"] for device in devices for holder in device.get("allocatedTo", ())]
    table = shown["Tenants: GPUs by namespace"].queries
    name = (namespace.name,)
    assert holders.count(namespace.name) == len(whole) + 2
    assert server.by(table["A"], "namespace") == {name: len(whole) + 1}
    assert server.by(table["C"], "namespace")[name] == pytest.approx(UTILIZATION / (len(whole) + 1))
    assert server.number(shown["Tenants: Containers"].queries["A"]) == 3
    assert server.number(shown["Tenants: GPUs held"].queries["A"]) == len(whole) + 1
    rows = server.by(shown["Tenants: Containers that hold GPUs"].queries["A"], "pod", "gpu")
    shared = [value for (pod, _), value in rows.items() if pod.startswith("share-")]
    assert server.number(shown["Tenants: Containers over promise"].queries["A"]) == 1
    assert shared == [PROMISED_MIB * BYTES_PER_MIB] * 2, rows


def _queue_is_right(server: Prometheus, shown: dict[str, BoardPanel], namespace: TestNamespace) -> None:
    rows = server.by(shown["Queue: Waiting workloads"].queries["A"], "namespace", "workload", "reason")
    placed = objects.condition(namespace.workload("too-large"), "Placed")
    reason = str(objects.condition(namespace.workload("too-large"), "Ready")["reason"])
    assert rows.keys() == {(namespace.name, "too-large", reason)}
    (waited,) = rows.values()
    since = datetime.fromisoformat(str(placed["lastTransitionTime"]))
    assert waited == pytest.approx((datetime.now(UTC) - since).total_seconds(), abs=5)
    pods_of_all = namespace.fleet.api.list("/api/v1/pods")
    waiting_for = {pod["metadata"]["name"]: pod["metadata"].get("annotations", {}).get(WAITING) for pod in pods_of_all}
    gated = [name for name, reason in waiting_for.items() if reason == "GPUWorkload"]
    assert gated == ["orphan"]
    assert server.number(shown["Queue: Gated pods without a GPUWorkload"].queries["A"]) == len(gated)


def _device_is_right(server: Prometheus, shown: dict[str, BoardPanel], fleet: Fleet, uuid: str) -> None:
    (device,) = [one for one in fleet.telemetry(fleet.nodes[0])["status"]["devices"] if one["uuid"] == uuid]
    assert server.number(shown["Device: Containers"].queries["A"]) == len(device["allocatedTo"]) == 2
    assert server.number(shown["Device: Healthy"].queries["A"]) == 1
    memory = shown["Device: Memory"].queries
    assert server.number(memory["C"]) == device["memoryTotalMiB"]
    assert server.number(memory["A"]) == device["memoryUsedMiB"]
    power = shown["Device: Power"].queries["A"]
    assert server.number(power) == pytest.approx(device["powerMilliwatts"] / 1000)


def _control_plane_is_right(server: Prometheus, shown: dict[str, BoardPanel], fleet: Fleet) -> None:
    expected = {
        "Operators": 1,
        "Agents": len(fleet.nodes),
        "Agents down": 0,
        "Nodes with stale telemetry": 0,
        "Unregistered plugins": 0,
    }
    assert {title: server.number(shown[f"Control plane: {title}"].queries["A"]) for title in expected} == expected
    versions = Counter((fleet.telemetry(node)["status"]["agentVersion"],) for node in fleet.nodes)
    assert server.by(shown["Control plane: Versions"].queries["A"], "version") == versions
    states = server.by(shown["Control plane: Nodes by telemetry state"].queries["A"], "state")
    assert states == {("Fresh",): len(fleet.nodes)}


def _every_panel_has_data(server: Prometheus, shown: dict[str, BoardPanel]) -> None:
    empty = {name for name, panel in shown.items() if not any(map(server.query, panel.queries.values()))}
    assert empty - MAY_LACK_DATA == WITHOUT_DATA - MAY_LACK_DATA


def _alert_fires(server: Prometheus, name: str, **labels: str) -> None:
    (rule,) = [one for one in server.rules() if one["name"] == name]
    firing = [alert["labels"] for alert in rule["alerts"] if alert["state"] == "firing"]
    assert any(labels.items() <= found.items() for found in firing), firing


def _cases_have_scraped_labels(server: Prometheus) -> None:
    """Checks that the series by which alerts are tested are those that Prometheus scrapes."""
    wrong = {}
    for series in {series for case in CASES for series in case.series}:
        (selector,) = selectors(series)
        scraped = server.series(selector.metric)
        labels = selector.labels - {"reason"}  # Prometheus has no empty labels, and only rejections have a reason
        if not any(labels <= found.keys() for found in scraped) and selector.metric not in FAULT_SERIES:
            wrong[series] = scraped[:1]
    assert wrong == {}
