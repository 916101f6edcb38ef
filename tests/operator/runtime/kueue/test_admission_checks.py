"""Writing the answers to AdmissionChecks."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, cast

from gpufleet_api.condition import Condition, ConditionStatus
from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.api import Api
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ConflictError, InvalidWriteError, UnavailableError
from gpufleet_operator.kube.events import ObjectEventRecorder, ObjectReference
from gpufleet_operator.model.actions import Event
from gpufleet_operator.runtime.kueue.admission_checks import AdmissionChecks
from gpufleet_testing.agent.virtual_time import in_virtual_time
from gpufleet_testing.operator import make

CHECK: Mapping[str, Any] = {
    "metadata": {"uid": "uid-c", "name": "devices", "resourceVersion": "1"},
    "spec": {"controllerName": "gpufleet.dev/devices"},
}
FOREIGN = {"metadata": {"uid": "uid-d", "name": "other", "resourceVersion": "1"}, "spec": {"controllerName": "x/y"}}
JOB: Mapping[str, Any] = {
    "metadata": {"uid": "uid-k", "namespace": "ml", "name": "job", "resourceVersion": "7"},
    "status": {
        "conditions": [{"type": "QuotaReserved", "status": "True", "lastTransitionTime": "2026-01-02T03:04:00Z"}],
        "admissionChecks": [{"name": "devices", "state": "Pending"}, {"name": "other", "state": "Pending"}],
    },
}
"""A Workload that is not made of pods: its check is Ready."""


class Server:
    """An apiserver that stores what is applied, or rejects it."""

    def __init__(self, error: Exception | None = None, workload: Mapping[str, Any] = JOB) -> None:
        self.error, self.workload = error, workload
        self.applied: list[tuple[str, Mapping[str, Any]]] = []

    async def apply(self, path: str, body: Mapping[str, Any]) -> Any:
        self.applied.append((path, body))
        if self.error is not None:
            raise self.error
        stored = {"Workload": self.workload, "AdmissionCheck": CHECK}[body["kind"]]
        meta = {**stored["metadata"], "resourceVersion": str(10 + len(self.applied))}
        return {**stored, "metadata": meta, "status": {**stored.get("status", {}), **body["status"]}}


class Recorder:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    async def record(self, about: ObjectReference, event: Event, now: datetime) -> None:
        del now
        self.events.append((about.name, event.reason, event.note))


def connected(
    server: Server, *, leads: bool = True, recorder: Recorder | None = None, cache: Cache | None = None
) -> AdmissionChecks:
    cache = cache or Cache()
    for check in (CHECK, FOREIGN):
        cache.admission_checks.apply(check)
    cache.kueue_workloads.apply(server.workload)
    api, events = cast("Api", server), cast("ObjectEventRecorder", recorder or Recorder())
    return AdmissionChecks(api, cache, ServerClock(lambda: make.NOW), events, may_write=lambda: leads)


async def test_check_becomes_active_and_gets_one_answer() -> None:
    server = Server()
    checks = connected(server)

    await checks.answer()
    await checks.answer()

    (active, condition), (answered, answer) = server.applied
    assert active == "/apis/kueue.x-k8s.io/v1beta2/admissionchecks/devices/status"
    assert condition["status"]["conditions"][0]["type"] == "Active"
    assert answered == "/apis/kueue.x-k8s.io/v1beta2/namespaces/ml/workloads/job/status"
    assert answer["metadata"]["resourceVersion"] == "7"
    assert [(one["name"], one["state"]) for one in answer["status"]["admissionChecks"]] == [("devices", "Ready")]
    assert "conditions" not in answer["status"]


async def test_standby_writes_nothing() -> None:
    server = Server()

    await connected(server, leads=False).answer()

    assert not server.applied


async def test_answer_that_is_rejected_is_written_again() -> None:
    server = Server(ConflictError("changed", 409))
    checks = connected(server)

    await checks.answer()
    await checks.answer()

    assert len(server.applied) == 4


async def test_answer_that_a_policy_forbids_is_not_repeated_in_each_round() -> None:
    server = Server(InvalidWriteError("forbidden by a policy", 403))
    checks = connected(server)

    await checks.answer()
    await checks.answer()

    assert len(server.applied) == 2, "the condition of the check, and the answer"


@in_virtual_time
async def test_answer_without_a_response_is_written_again_after_longer_pauses() -> None:
    server = Server(UnavailableError("no response"))
    checks, loop = connected(server), asyncio.get_running_loop()
    begin, attempts = loop.time(), dict[str, list[float]]()

    while loop.time() - begin <= 32:
        before = len(server.applied)
        await checks.answer()
        for path, _ in server.applied[before:]:
            attempts.setdefault(path, []).append(loop.time())
        await asyncio.sleep(0.5)

    pauses = {path: [b - a for a, b in pairwise(times)] for path, times in attempts.items()}
    assert list(pauses.values()) == [[0.5, 1, 2, 4, 8, 16]] * 2, "the condition of the check, and the answer"


@in_virtual_time
async def test_hanging_condition_of_a_check_delays_no_answer() -> None:
    class Hanging(Server):
        async def apply(self, path: str, body: Mapping[str, Any]) -> Any:
            if body["kind"] == "AdmissionCheck":
                await asyncio.Event().wait()
            return await super().apply(path, body)

    server = Hanging()
    await connected(server).answer()

    assert [path.rpartition("/workloads/")[2] for path, _ in server.applied] == ["job/status"]


async def test_retry_evicts_the_workload_and_is_an_event() -> None:
    """Kueue itself evicts only when the pause is over."""
    pod = make.pod()
    meta = {**JOB["metadata"], "ownerReferences": [{"kind": "Pod", "uid": pod.uid}]}
    server, recorder, cache = Server(workload={**JOB, "metadata": meta}), Recorder(), Cache()
    placed = Condition(
        type="Placed",
        status=ConditionStatus.FALSE,
        reason="NoDevicesAvailable",
        message="0/2 GPUs are available: 2 in use.",
        last_transition_time="2026-01-02T03:04:00Z",
    )
    cache.workloads.put(make.workload(status=WorkloadStatus(conditions=[placed])))
    cache.pods.put(pod)

    await connected(server, recorder=recorder, cache=cache).answer()

    (*_, (_, answer)) = server.applied
    (check,), (evicted,) = answer["status"]["admissionChecks"], answer["status"]["conditions"]
    assert (check["state"], check["requeueAfterSeconds"], check["retryCount"]) == ("Retry", 10, 1)
    assert (evicted["type"], evicted["status"], evicted["reason"]) == ("Evicted", "True", "AdmissionCheck")
    note = "quota returned to Kueue: 0/2 GPUs are available: 2 in use."
    assert recorder.events == [("train", "QuotaReturned", note)]


async def test_check_of_a_paused_workload_is_reset_with_a_new_time_of_eviction() -> None:
    """A Workload that became inadmissible in Kueue while the check was Retry is queued again."""
    check = {"name": "devices", "state": "Retry", "message": "2 in use", "retryCount": 1, "requeueAfterSeconds": 10}
    status = {"admissionChecks": [check], "requeueState": {"requeueAt": "2026-01-02T03:04:10Z"}}
    server = Server(workload={**JOB, "status": status})

    await connected(server).answer()

    (*_, (_, answer)) = server.applied
    now = timestamps.seconds(make.NOW)
    reset = {"name": "devices", "state": "Pending", "message": "2 in use", "lastTransitionTime": now, "retryCount": 1}
    evicted = {"type": "Evicted", "status": "True", "reason": "AdmissionCheck", "message": "2 in use"}
    assert answer["status"] == {"admissionChecks": [reset], "conditions": [{**evicted, "lastTransitionTime": now}]}
