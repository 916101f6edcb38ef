"""The collector asks containers and watches objects; an unreadable source is a recorded problem, not a crash."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes import client, watch

from gpufleet_e2e.proof.api_reader import ApiReader, describe_conditions
from gpufleet_e2e.proof.collector import EvidenceCollector
from gpufleet_e2e.proof.compare import CHECKED_SOURCES
from gpufleet_e2e.proof.containers import Containers
from gpufleet_e2e.proof.errors import EvidenceError, WaitTimeoutError
from gpufleet_e2e.proof.evidence import Source

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: test, user: {}}]
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    return path


def test_the_environment_is_that_of_the_first_process(kubeconfig: Path) -> None:
    asked = []

    class Fake(Containers):
        def run(self, *words: str) -> str:
            asked.append(words)
            return "NVIDIA_VISIBLE_DEVICES=GPU-a\0HOME=/\0"

    with EvidenceCollector(
        kubeconfig=kubeconfig, sockets={}, containers=Fake(cast("client.ApiClient", None))
    ) as collector:
        assert collector.environment("demo", "p", "main") == {"NVIDIA_VISIBLE_DEVICES": "GPU-a", "HOME": "/"}
    assert asked == [("demo", "p", "main", "cat", "/proc/1/environ")]


def test_command_in_a_container_that_cannot_be_reached_is_an_error(kubeconfig: Path) -> None:
    words = r"exec in demo/p, container main: .*Connection refused"
    with (
        EvidenceCollector(kubeconfig=kubeconfig, sockets={}) as collector,
        pytest.raises(EvidenceError, match=words),
    ):
        collector.environment("demo", "p", "main")


@pytest.mark.parametrize(("minor", "expected"), [("34", False), ("35", False), ("36", True), ("37+", True)])
def test_status_by_the_kubelet_is_a_source_of_newer_clusters(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, minor: str, expected: bool
) -> None:
    found = SimpleNamespace(major="1", minor=minor)
    monkeypatch.setattr(client.VersionApi, "get_code", lambda self: found)
    with EvidenceCollector(kubeconfig=kubeconfig, sockets={}) as collector:
        assert (Source.POD_STATUS in collector.sources) is expected
        assert set(CHECKED_SOURCES) - set(collector.sources) <= {Source.POD_STATUS}


def played(monkeypatch: pytest.MonkeyPatch, *events: tuple[str, dict[str, Any]]) -> None:
    """Let a watch stream consist of these events."""

    def stream(self: watch.Watch, listing: object, *key: str, **options: object) -> Iterator[dict[str, Any]]:
        assert options["field_selector"] == "metadata.name=train"
        return iter([{"type": kind, "object": found} for kind, found in events])

    monkeypatch.setattr(watch.Watch, "stream", stream)


def workload(state: str) -> dict[str, Any]:
    condition = {"type": "Ready", "status": state, "reason": "Waiting", "message": "no device is free"}
    return {"metadata": {"name": "train"}, "status": {"conditions": [condition]}}


def ready(found: dict[str, Any]) -> bool:
    return bool(found["status"]["conditions"][0]["status"] == "True")


def test_wait_ends_at_the_first_accepted_object(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, ("ADDED", workload("False")), ("MODIFIED", workload("True")), ("DELETED", workload("True")))
    with ApiReader(kubeconfig) as reader:
        found = reader.wait_for_workload("demo", "train", ready, timeout_seconds=5)
    assert ready(found)


def test_failed_wait_reports_the_last_state(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, ("ADDED", workload("False")), ("DELETED", workload("False")))
    words = r"demo/train after 5 s: Ready=False Waiting: no device is free"
    with ApiReader(kubeconfig) as reader, pytest.raises(WaitTimeoutError, match=words):
        reader.wait_for_workload("demo", "train", ready, timeout_seconds=5)


def test_failed_wait_for_telemetry_contains_the_last_write(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"metadata": {"name": "train"}, "status": {"observedAt": "2026-01-01T00:00:00Z"}}
    played(monkeypatch, ("ADDED", seen), ("DELETED", seen))
    words = r"GPUTelemetry train after 3 s: last written 2026-01-01T00:00:00Z"
    with ApiReader(kubeconfig) as reader, pytest.raises(WaitTimeoutError, match=words):
        reader.wait_for_telemetry("train", lambda _: False, timeout_seconds=3)


def test_missing_conditions_are_reported() -> None:
    assert describe_conditions({}) == "no condition"


def test_unreachable_apiserver_is_an_error_with_the_object(kubeconfig: Path) -> None:
    with ApiReader(kubeconfig) as reader, pytest.raises(EvidenceError, match=r"GPUTelemetry: .*Connection refused"):
        reader.telemetry()
