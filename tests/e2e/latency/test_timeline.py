"""Which step each object shows, without a cluster."""

from typing import Any

import pytest
from kubernetes import client

from gpufleet_e2e.latency.timeline import Timeline

LABELS = {"gpufleet.dev/workload": "train"}


@pytest.fixture
def timeline() -> Timeline:
    return Timeline(client.ApiClient(), "ml")


def pod(name: str, labels: dict[str, str], *, gated: bool = False, node: str = "", running: bool = False) -> Any:
    spec = {"schedulingGates": [{"name": "gpufleet.dev/assignment"}] if gated else [], "nodeName": node}
    states: list[Any] = [{"state": {"running": {}}}] if running else []
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"containerStatuses": states}}


def test_steps_of_a_workload_are_those_of_its_pod(timeline: Timeline) -> None:
    timeline.see_pod(pod("train-0-abc", LABELS, gated=True))
    timeline.see_telemetry({"spec": {"assignments": [{"namespace": "ml", "workload": "train"}]}})
    timeline.see_claim({"metadata": {"name": "gpufleet-train-0-abc", "labels": LABELS}})
    assert list(timeline.steps("train")) == ["created", "reserved", "claimed"]
    first = timeline.steps("train")["created"]
    timeline.see_pod(pod("train-0-abc", LABELS, node="node-1"))
    timeline.see_claim({"metadata": {"name": "c", "labels": LABELS}, "status": {"allocation": {"devices": {}}}})
    timeline.see_pod(pod("train-0-abc", LABELS, node="node-1", running=True))
    assert list(timeline.steps("train")) == [
        "created",
        "reserved",
        "claimed",
        "released",
        "allocated",
        "bound",
        "running",
    ]
    assert timeline.steps("train")["created"] == first


def test_steps_of_a_pod_without_a_workload_are_under_its_name(timeline: Timeline) -> None:
    timeline.see_pod(pod("plain", {}))
    timeline.see_telemetry({"spec": {"assignments": [{"namespace": "other", "workload": "plain"}]}})
    assert list(timeline.steps("plain")) == ["created", "released"]
    assert timeline.steps("unknown") == {}


def test_versions_of_a_workload_are_counted(timeline: Timeline) -> None:
    for _ in range(3):
        timeline.see_workload({"metadata": {"name": "train"}})
    assert timeline.versions == {"train": 3}
