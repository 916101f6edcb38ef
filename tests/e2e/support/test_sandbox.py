"""What is read once after a restart may be older than the restart: these waits must not take it for the result."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpufleet_e2e.support import polling
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.sandbox import TestNamespace

Json = dict[str, Any]


class ScriptedApi:
    """Answers each read with the next object, and with the last one from then on."""

    def __init__(self, *objects: Json | list[Json]) -> None:
        self._objects = list(objects)

    def create(self, path: str, body: Mapping[str, Any]) -> None: ...

    def find(self, path: str) -> Json:
        return {"metadata": {}}

    def get(self, path: str) -> Json | list[Json]:
        return self._objects.pop(0) if len(self._objects) > 1 else self._objects[0]

    list = get


class LatePolicyApi(ScriptedApi):
    """Rejects the first dry runs."""

    def __init__(self, rejections: int) -> None:
        super().__init__()
        self.created: list[str] = []
        self._rejections = rejections

    def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> None:
        if path.endswith("/pods"):
            self.created.append("dry run" if dry_run else body["metadata"]["name"])
            assert len(self.created) > self._rejections, "GPUWorkload train does not exist"


def namespace(api: ScriptedApi) -> TestNamespace:
    return TestNamespace(cast("Fleet", SimpleNamespace(api=api)), "test")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "sleep", lambda _: None)


def workload(reason: str, devices: int) -> Json:
    conditions = [{"type": "Placed", "status": "False", "reason": "NoDevicesAvailable"}]
    explanation = {"ineligibleDevices": [{"reason": reason, "devices": devices}]}
    return {"metadata": {}, "status": {"conditions": conditions, "explanation": explanation}}


def test_wait_rejected_ignores_reasons_of_a_restarting_agent() -> None:
    stale, unhealthy = workload("TelemetryStale", 8), workload("DeviceUnhealthy", 1)
    found = namespace(ScriptedApi(stale, stale, unhealthy)).wait_rejected("train", "DeviceUnhealthy", 1, within=5)
    assert found == unhealthy["status"]["explanation"]


def test_wait_rejected_fails_with_the_last_reasons() -> None:
    with pytest.raises(AssertionError, match=r"rejected by {'TelemetryStale': 8}"):
        namespace(ScriptedApi(workload("TelemetryStale", 8))).wait_rejected("train", "DeviceUnhealthy", 1, within=0)


def test_event_is_waited_for_because_it_is_recorded_in_the_background() -> None:
    recorded = [{"involvedObject": {"name": "train"}, "reason": "KubeletRejected", "message": "why"}]
    assert namespace(ScriptedApi([], recorded)).event("train", "KubeletRejected") == "why"
    with pytest.raises(AssertionError, match="train has no event Other"):
        namespace(ScriptedApi(recorded)).event("train", "Other", within=0)


def test_labeled_pod_is_created_once_the_policies_accept_it() -> None:
    api = LatePolicyApi(rejections=2)
    namespace(api).create_pod({"metadata": {"name": "train-0"}})
    assert api.created == ["dry run", "dry run", "dry run", "train-0"]
