"""Each state of a workload has one verdict by kstatus' rules, which Flux and Config Sync wait for."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gpufleet_api.crd import WORKLOAD
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.kube import patches
from gpufleet_operator.model.actions import create_key
from gpufleet_operator.model.objects import Pod, PodPhase, Telemetry, Workload
from gpufleet_operator.model.state_types import Backoff, PassState
from gpufleet_testing.kstatus import KStatus, kstatus
from gpufleet_testing.operator import make

INVALID: Mapping[str, Any] = {"spec": {"restartPolicy": "Always", "nodeName": "n", "containers": [{"name": "a"}]}}
ENDS: Mapping[str, Any] = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}}


def given(workload: Workload, *others: Pod | Telemetry, state: PassState | None = None) -> KStatus:
    """Returns the verdict once the statuses of two passes are written."""
    for _ in range(2):
        actions = decide(make.snapshot(workload, *others, state=state))
        state = actions.state
        status = actions.statuses[0].status if actions.statuses else workload.status or WorkloadStatus()
        placements = {p.replica: p for p in status.placements}
        workload = replace(workload, status=status, stored_placements=placements)
    meta = {
        "generation": workload.generation,
        **({"deletionTimestamp": "2026-01-02T03:04:05Z"} if workload.deleting else {}),
    }
    return kstatus({"metadata": meta, "status": patches.as_json(status)})


def rejected(message: str) -> PassState:
    backoff = Backoff(1, make.NOW, make.NOW + timedelta(seconds=60), message, "apiserver")
    return PassState(write_backoffs={create_key("uid-train"): backoff})


def test_object_that_no_operator_has_seen_is_in_progress() -> None:
    assert WORKLOAD.status_default is not None
    assert kstatus({"metadata": {"generation": 1}, "status": WORKLOAD.status_default}) is KStatus.IN_PROGRESS


def test_old_status_is_in_progress() -> None:
    status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}

    assert kstatus({"metadata": {"generation": 2}, "status": status}) is KStatus.IN_PROGRESS


def test_running_workload_is_current() -> None:
    pod = make.running_pod()
    assignment = make.assignment(pod)

    assert (
        given(make.workload(), pod, make.telemetry(assignments=[assignment], held={"GPU-1-0": assignment}))
        is KStatus.CURRENT
    )


def test_suspended_workload_is_current() -> None:
    assert given(make.workload(suspend=True), make.telemetry()) is KStatus.CURRENT


def test_workload_that_is_being_suspended_is_in_progress() -> None:
    assert given(make.workload(suspend=True), make.running_pod(), make.telemetry()) is KStatus.IN_PROGRESS


def test_complete_workload_is_current() -> None:
    pod = make.running_pod(phase=PodPhase.SUCCEEDED)

    assert given(make.workload(template=ENDS), pod, make.telemetry()) is KStatus.CURRENT


def test_failed_workload_is_failed() -> None:
    workload = make.workload(template=ENDS, runPolicy={"backoffLimit": 0})

    assert given(workload, make.running_pod(phase=PodPhase.FAILED), make.telemetry()) is KStatus.FAILED


def test_workload_without_replicas_is_current() -> None:
    assert given(make.workload(replicas=0), make.telemetry()) is KStatus.CURRENT


@pytest.mark.parametrize(
    "others",
    [
        (),
        (make.pod(),),
        (make.pod(), make.telemetry(devices=0)),
        (make.pod(), make.telemetry()),
        (make.released_pod(),),
    ],
    ids=["without a pod", "gated", "without devices", "released now", "unbound"],
)
def test_workload_on_its_way_is_in_progress(others: tuple[Pod | Telemetry, ...]) -> None:
    assert given(make.workload(), *others) is KStatus.IN_PROGRESS


def test_invalid_template_is_failed() -> None:
    assert given(make.workload(template=INVALID), make.telemetry()) is KStatus.FAILED


def test_object_that_does_not_parse_is_failed() -> None:
    broken = replace(make.workload(), model=None, invalid="spec.replicas: Input should be a valid integer")

    assert given(broken, make.telemetry()) is KStatus.FAILED


def test_pods_that_the_apiserver_rejects_are_failed() -> None:
    error = 'pods "train-0-abcde" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'

    assert given(make.workload(), make.telemetry(), state=rejected(error)) is KStatus.FAILED


def test_pods_that_wait_for_quota_are_in_progress() -> None:
    error = 'pods "train-0-abcde" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'

    assert given(make.workload(), make.telemetry(), state=rejected(error)) is KStatus.IN_PROGRESS


def test_workload_that_is_being_deleted_is_terminating() -> None:
    assert given(replace(make.workload(), deleting=True), make.telemetry()) is KStatus.TERMINATING
