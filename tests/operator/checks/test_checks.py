"""The checks that the chart runs as hooks of helm."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from gpufleet_operator.checks import installation, uninstallation
from gpufleet_operator.checks.__main__ import CheckError, check_installation, check_uninstallation
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_testing.operator.http_apiserver import HandledRequests

Json = dict[str, Any]
WORKLOAD: Json = {"metadata": {"name": "probe", "namespace": "system"}, "spec": {}}


def telemetry(node: str = "node-1", *, devices: int = 1, fresh: str = "True", transport: str = "DevicePlugin") -> Json:
    condition = {"type": "Fresh", "status": fresh, "message": "no report for 95 s" if fresh == "False" else ""}
    status = {"devices": [{}] * devices, "conditions": [condition], "transport": transport}
    return {"metadata": {"name": node}, "status": status}


def node(name: str = "node-1", offered: str = "8") -> Json:
    return {"metadata": {"name": name}, "status": {"allocatable": {"gpufleet.dev/gpu": offered}}}


def workload(name: str = "train", *conditions: str, suspend: bool = False) -> Json:
    status = {"conditions": [{"type": kind, "status": "True"} for kind in conditions]}
    return {"metadata": {"namespace": "team", "name": name}, "spec": {"suspend": suspend}, "status": status}


def pod(name: str = "train", *, gated: bool = False, phase: str = "Running", owner: str = "") -> Json:
    gates = [{"name": "gpufleet.dev/assignment"}] if gated else []
    labels = {"gpufleet.dev/workload": name}
    reference = {"apiVersion": "gpufleet.dev/v1alpha1", "kind": owner, "name": name, "uid": "u", "controller": True}
    meta = {"namespace": "team", "labels": labels, "ownerReferences": [reference] if owner else []}
    return {"metadata": meta, "spec": {"schedulingGates": gates}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("telemetries", "reason"),
    [
        ([], "no GPUTelemetry: no agent has written one"),
        ([telemetry(devices=0)], "no usable GPUTelemetry: node-1 has no devices"),
        ([telemetry(fresh="False")], "no usable GPUTelemetry: node-1 is not fresh: no report for 95 s"),
        ([telemetry(fresh="Unknown")], "node-1 is not fresh: the operator has not read it yet"),
        ([telemetry(devices=0), telemetry("node-2")], ""),
    ],
)
def test_missing_telemetry_names_each_node(telemetries: list[Json], reason: str) -> None:
    found = installation.missing_telemetry(telemetries)
    assert found.endswith(reason)
    assert bool(found) is bool(reason)


@pytest.mark.parametrize(
    ("telemetries", "nodes", "missing"),
    [
        ([telemetry()], [node()], False),
        ([telemetry()], [node(offered="0")], True),
        ([telemetry()], [node("node-2")], True),
        ([telemetry(devices=0)], [node()], True),
        ([telemetry(transport="DRA")], [node(offered="0")], False),
    ],
)
def test_plugin_is_registered_when_a_node_offers_devices(
    telemetries: list[Json], nodes: list[Json], missing: bool
) -> None:
    assert bool(installation.missing_plugin(telemetries, nodes, "gpufleet.dev/gpu")) is missing


def test_nothing_is_left_behind_by_finished_and_suspended_workloads() -> None:
    ended = [workload("a", "Complete"), workload("b", "Failed"), workload("c", suspend=True)]
    assert uninstallation.left_behind(ended, [pod("a", phase="Succeeded"), pod("b", phase="Failed")]) == []


def test_active_workloads_and_pods_that_wait_are_listed() -> None:
    lines = uninstallation.left_behind(
        [workload("train"), workload("quiet")],
        [pod(), pod(), pod(gated=True), pod("adopted", gated=True), pod("other")],
    )
    assert lines == [
        "team/quiet: 0 pods run, 0 pods wait",
        "team/train: 2 pods run, 1 pod waits",
        "team/adopted: not active, 1 pod waits",
    ]


def deleting(body: Json) -> Json:
    return {**body, "metadata": {**body["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize(
    ("workloads", "pods", "temporary"),
    [
        ([], [pod(gated=True, owner="GPUWorkload")], True),
        ([deleting(workload())], [pod(gated=True, owner="GPUWorkload"), pod(owner="GPUWorkload")], True),
        ([workload("train", "Complete")], [pod(gated=True, owner="GPUWorkload")], True),
        ([], [deleting(pod(gated=True, owner="Job"))], True),
        ([], [pod(gated=True, owner="Job")], False),
        ([], [pod(gated=True)], False),
        ([deleting(workload()), workload("other")], [], False),
    ],
)
def test_pods_of_deleted_workloads_are_temporary(workloads: list[Json], pods: list[Json], temporary: bool) -> None:
    assert uninstallation.left_behind(workloads, pods)
    assert uninstallation.is_temporary(workloads, pods) is temporary


def connect(respond: Callable[[str, str], object]) -> Api:
    def handle(request: httpx2.Request) -> httpx2.Response:
        found = respond(request.method, str(request.url.path))
        if isinstance(found, int):
            return httpx2.Response(found, json={"kind": "Status", "message": "no", "code": found})
        return httpx2.Response(200, json=found)

    return Api(HandledRequests(handle), ServerClock())


class Cluster:
    """Answers as an apiserver with one GPU node; the workload is Ready after a number of reads."""

    def __init__(self, ready_after: int) -> None:
        self.reads_left = ready_after
        self.calls: list[str] = []
        self.exists = False

    def __call__(self, method: str, path: str) -> object:
        name = path.rpartition("/")[2]
        if method == "GET" and name in ("gputelemetries", "nodes"):
            return {"items": [telemetry()] if name == "gputelemetries" else [node()]}
        self.calls.append(method)
        if method == "POST":
            self.exists = True
            return WORKLOAD
        if not self.exists:
            return 404
        if method == "DELETE":
            self.exists = False
            return {}
        self.reads_left -= 1
        ready = {"type": "Ready", "status": "True" if self.reads_left < 0 else "False", "message": "1 GPU in use"}
        return {"status": {"conditions": [ready], "placements": [{"pod": "p", "node": "n", "devices": ["GPU-1"]}]}}


async def test_installation_is_confirmed_by_a_workload_that_is_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(ready_after=2)
    await check_installation(connect(cluster), "gpufleet.dev/gpu", WORKLOAD, timeout_seconds=60, pause_seconds=0)
    assert cluster.calls == ["DELETE", "POST", "GET", "GET", "GET", "GET", "DELETE"]
    assert not cluster.exists
    assert capsys.readouterr().out.splitlines()[-1] == "pod p on n has GPU-1"


async def test_workload_that_stays_unready_is_deleted_and_its_reason_named() -> None:
    cluster = Cluster(ready_after=10**6)
    with pytest.raises(CheckError, match="timed out: GPUWorkload is not Ready: 1 GPU in use"):
        await check_installation(
            connect(cluster), "gpufleet.dev/gpu", WORKLOAD, timeout_seconds=0.05, pause_seconds=0.01
        )
    assert not cluster.exists


async def test_unavailable_apiserver_is_retried_until_the_timeout() -> None:
    api = connect(lambda *_: 503)
    with pytest.raises(CheckError, match="the apiserver does not respond"):
        await check_installation(api, "gpufleet.dev/gpu", WORKLOAD, timeout_seconds=0.02, pause_seconds=0.01)


async def test_uninstallation_without_crds_is_possible() -> None:
    await check_uninstallation(connect(lambda _, path: 404 if path.endswith("gpuworkloads") else {"items": []}))


async def test_uninstallation_with_active_workloads_fails_with_advice() -> None:
    api = connect(lambda _, path: {"items": [workload()] if path.endswith("gpuworkloads") else [pod(gated=True)]})
    expected = r"(?s)1 still active:.*team/train: 0 pods run, 1 pod waits.*--no-hooks.*helm rollback gpufleet 3$"
    with pytest.raises(CheckError, match=expected):
        await check_uninstallation(api, "helm rollback gpufleet 3")


class Collecting:
    """Answers as an apiserver whose garbage collector deletes the pod of a deleted workload after some lists."""

    def __init__(self, lists: int) -> None:
        self.lists_left = lists

    def __call__(self, method: str, path: str) -> object:
        del method
        if path.endswith("gpuworkloads"):
            return {"items": []}
        self.lists_left -= 1
        return {"items": [pod(gated=True, owner="GPUWorkload")] if self.lists_left >= 0 else []}


async def test_uninstallation_waits_for_pods_of_a_deleted_workload(capsys: pytest.CaptureFixture[str]) -> None:
    await check_uninstallation(connect(Collecting(lists=3)), timeout_seconds=60, pause_seconds=0)
    assert capsys.readouterr().out == "no GPUWorkload is active, and no pod waits for the operator\n"


async def test_uninstallation_fails_when_pods_of_a_deleted_workload_stay() -> None:
    api = connect(Collecting(lists=10**6))
    with pytest.raises(CheckError, match=r"(?s)timed out: 1 still active:.*team/train: not active, 1 pod waits"):
        await check_uninstallation(api, timeout_seconds=0.05, pause_seconds=0.01)


async def test_uninstallation_with_an_active_workload_does_not_wait() -> None:
    lists = Collecting(lists=10**6)
    api = connect(lambda *call: {"items": [workload()]} if call[1].endswith("gpuworkloads") else lists(*call))
    with pytest.raises(CheckError, match="1 still active"):
        await check_uninstallation(api, timeout_seconds=60)
    assert lists.lists_left == 10**6 - 1, "it is listed once"
