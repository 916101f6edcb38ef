"""What a user reads about a pod that is not Ready or failed."""

from typing import Any

import pytest

from gpufleet_operator.cache import decode_pod
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.problems import failure, last_failure, not_ready

IMAGE = "registry.example/none:1"
PULL = {"image": IMAGE, "state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}}
LOOP = {
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
    "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "containerID": "c"}},
}
RUNS = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "started": True, "ready": True}
OOM = {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "c"}}}
CREATING = {"state": {"waiting": {"reason": "PodInitializing"}}}


def pod(*containers: dict[str, Any], init: dict[str, Any] | None = None, **status: object) -> Pod:
    """A pod as the kubelet reports it; its containers are called main, second, and so on."""
    statuses = [{"name": name, **found} for name, found in zip(("main", "second"), containers, strict=False)]
    body = {
        "metadata": {
            "uid": "uid-1",
            "namespace": "ml",
            "name": "train-0-a",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"gpufleet.dev/attempt": "2"},
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "containerStatuses": statuses,
            "initContainerStatuses": [{"name": "setup", **init}] if init else [],
            **status,
        },
    }
    return decode_pod.pod(body)


NOT_READY: dict[str, tuple[Pod, str, str]] = {
    "image": (pod(PULL), "ImagePullBackOff", f"container main: ImagePullBackOff: {IMAGE}: no such host"),
    "loop": (pod(LOOP), "CrashLoopBackOff", "container main: CrashLoopBackOff: exit code 3, 4 restarts"),
    "error in the second container": (
        pod(RUNS, LOOP),
        "CrashLoopBackOff",
        "container second: CrashLoopBackOff: exit code 3, 4 restarts",
    ),
    "out of memory": (pod(OOM), "OOMKilled", "container main: OOMKilled (exit code 137)"),
    "command": (
        pod({"state": {"waiting": {"reason": "RunContainerError", "message": "exec: /no/such: not found"}}}),
        "RunContainerError",
        "container main: RunContainerError: exec: /no/such: not found",
    ),
    "init container": (
        pod(CREATING, init=LOOP),
        "CrashLoopBackOff",
        "init container setup: CrashLoopBackOff: exit code 3, 4 restarts",
    ),
    "running init container": (
        pod(CREATING, init={"state": RUNS["state"]}),
        "PodsNotReady",
        "init container setup has not completed yet",
    ),
    "readiness probe": (
        pod({**RUNS, "ready": False}),
        "PodsNotReady",
        "container main runs, its readiness probe does not succeed",
    ),
    "startup probe": (
        pod({**RUNS, "ready": False, "started": False}),
        "PodsNotReady",
        "container main runs, its startup probe has not succeeded yet",
    ),
    "creating": (
        pod({"state": {"waiting": {"reason": "ContainerCreating"}}}),
        "PodsNotReady",
        "container main: ContainerCreating",
    ),
    "readiness gate": (
        pod(RUNS, conditions=[{"type": "Ready", "status": "False", "message": "the gate x is False"}]),
        "PodsNotReady",
        "the gate x is False",
    ),
    "nothing reported": (pod(), "PodsNotReady", "the kubelet has not started the containers yet"),
}


@pytest.mark.parametrize(("found", "reason", "message"), NOT_READY.values(), ids=NOT_READY.keys())
def test_pod_that_is_not_ready_names_its_container(found: Pod, reason: str, message: str) -> None:
    problem = not_ready(found)

    assert (problem.reason, problem.message) == (reason, message)


def ended(code: int, **fields: object) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": code, "reason": "Error", "containerID": "c", **fields}}}


FAILED: dict[str, tuple[Pod, str]] = {
    "exit code": (pod(ended(3)), "container main: exit code 3"),
    "signal": (pod(ended(139)), "container main: exit code 139 (SIGSEGV)"),
    "message of the container": (pod(ended(1, message="no data\n")), "container main: exit code 1: no data"),
    "two containers": (pod(ended(3), ended(4)), "container main: exit code 3; container second: exit code 4"),
    "only one failed": (pod(ended(0), ended(4)), "container second: exit code 4"),
    "init container": (pod(CREATING, init=ended(5)), "init container setup: exit code 5"),
    "evicted": (pod(ended(137), reason="Evicted", message="low on memory"), "Evicted: low on memory"),
    "nothing reported": (pod(), "pod failed"),
}


@pytest.mark.parametrize(("found", "message"), FAILED.values(), ids=FAILED.keys())
def test_failed_pod_names_its_container_and_exit_code(found: Pod, message: str) -> None:
    assert failure(found) == message


def test_restarted_container_names_its_last_exit_code() -> None:
    running_again = {**RUNS, "restartCount": 1, "lastState": ended(3)["state"]}

    assert last_failure(pod(RUNS, running_again)) == "container second: exit code 3"


def test_pod_has_the_attempt_of_its_label() -> None:
    assert pod().attempt == 2
