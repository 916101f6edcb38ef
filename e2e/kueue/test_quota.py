"""Kueue admits the pods of GPUWorkloads by quota, and gpufleet answers its check by devices."""

import pytest

from gpufleet_e2e.kubernetes_features import MUTATING_POLICIES
from gpufleet_e2e.support.api import JsonObject, batch
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, adopting, gpuworkload, job
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.programs.kueue_queue import KUEUE_GATE, QUEUE, QUEUE_LABEL, QUOTA, Queue
from gpufleet_e2e.support.sandbox import TestNamespace

TOPOLOGY_GATE = "kueue.x-k8s.io/topology"
"""Kueue adds it to each pod beside the other one, and removes both."""
ADMITTED_SECONDS = 90
"""Devices are free a report after their pod's end, and Kueue tries a Workload again after a pause."""


def check_used(queue: Queue, number: int) -> None:
    """Kueue writes the status of a queue some time after it has admitted a workload."""
    assert queue.used == number


def queued(name: str, **fields: object) -> JsonObject:
    """A GPUWorkload with a queue."""
    body: JsonObject = gpuworkload(name, **fields)  # type: ignore[arg-type]  # passed on
    body["metadata"]["labels"] = {QUEUE_LABEL: QUEUE}
    return body


def gates(namespace: TestNamespace, name: str) -> list[list[str]]:
    """The gates of each pod."""
    found = ((gate["name"] for gate in pod["spec"].get("schedulingGates", [])) for pod in namespace.pods(name))
    return [sorted(name for name in names if name != TOPOLOGY_GATE) for names in found]


@pytest.mark.parametrize("queue", [True, False], indirect=True, ids=["with-the-check", "without-the-check"])
def test_gang_over_the_quota_waits_for_kueue_and_runs_after(
    namespace: TestNamespace, queue: Queue, fleet: Fleet
) -> None:
    """Invariant: the quota is never exceeded, and a gang is admitted as a whole."""
    namespace.apply(queued("first", count=QUOTA - 1))
    namespace.verify("first", within=ADMITTED_SECONDS)
    namespace.apply(queued("gang", replicas=2, placement={"gang": True}))

    def waits() -> None:
        assert gates(namespace, "gang") == [[GATE, KUEUE_GATE]] * 2, gates(namespace, "gang")
        assert queue.used == QUOTA - 1

    eventually(waits, within=ADMITTED_SECONDS)
    never(lambda: _keeps_the_gates(namespace, fleet), for_seconds=5)
    waits()

    namespace.delete("first")
    namespace.verify("gang", within=ADMITTED_SECONDS)
    eventually(lambda: check_used(queue, 2), within=ADMITTED_SECONDS)
    assert gates(namespace, "gang") == [[], []]


@pytest.mark.kubernetes(MUTATING_POLICIES)
@pytest.mark.parametrize("queue", [False], indirect=True, ids=["without-the-check"])
def test_labeled_jobs_are_counted_by_their_templates(namespace: TestNamespace, queue: Queue, fleet: Fleet) -> None:
    """Mechanism: a policy of the chart adds the request to the Job's template, which is what Kueue counts.

    If only the pods had the request, both Jobs would be admitted.
    """
    count, path = QUOTA - 3, batch(namespace.name)
    namespace.apply(adopting("first", count=count), adopting("second", count=count))
    first, second = (_queued_job(name) for name in ("first", "second"))
    for body in (first, second):  # the policy reads a GPUWorkload a moment after it was created
        eventually(lambda body=body: fleet.api.create(path, body, dry_run=True), within=30)  # type: ignore[misc] # bound
    fleet.api.create(path, first)
    eventually(lambda: namespace.check_placed(first=1), within=ADMITTED_SECONDS)
    namespace.verify("first")
    eventually(lambda: check_used(queue, count), within=ADMITTED_SECONDS)
    fleet.api.create(path, second)

    def waits() -> None:
        assert fleet.api.get(f"{path}/second")["spec"]["suspend"]
        check_used(queue, count)

    never(waits, for_seconds=5)
    fleet.api.delete(f"{path}/first")
    eventually(lambda: namespace.check_placed(second=1), within=ADMITTED_SECONDS)
    namespace.verify("second")
    fleet.api.delete(f"{path}/second")


def _queued_job(name: str) -> JsonObject:
    body = job(name, 1, "trap 'exit 0' TERM; sleep 1000000 & wait")
    body["metadata"]["labels"] = {QUEUE_LABEL: QUEUE}
    return body


def test_quota_of_a_workload_without_devices_is_returned(namespace: TestNamespace, queue: Queue, fleet: Fleet) -> None:
    """Without the check, the first workload of the queue would hold the whole quota while others use its devices.

    Invariant: the quota is free during the pause, and a workload that is created then gets it.
    """
    node, other = fleet.nodes[1], fleet.nodes[0]
    namespace.apply(gpuworkload("holder", count=len(fleet.gpus[node].uuids), node=node))
    namespace.verify("holder")

    namespace.apply(queued("blocked", count=QUOTA, node=node))
    eventually(lambda: queue.check_paused("blocked"), within=ADMITTED_SECONDS)
    assert f"{QUOTA} in use" in namespace.event("blocked", "QuotaReturned")
    namespace.apply(queued("small", count=QUOTA, node=other))
    namespace.verify("small", within=ADMITTED_SECONDS)
    eventually(lambda: check_used(queue, QUOTA), within=ADMITTED_SECONDS)
    assert gates(namespace, "blocked") == [[GATE, KUEUE_GATE]]
    (paused,) = queue.workloads("blocked")
    assert "admission" not in paused["status"], paused["status"]

    namespace.delete("small", "holder")
    namespace.verify("blocked", within=ADMITTED_SECONDS * 2)
    (admitted,) = queue.workloads("blocked")
    (check,) = admitted["status"]["admissionChecks"]
    assert (check["state"], check["message"]) == ("Ready", f"Devices of 1 pod are reserved on {node}.")


def _keeps_the_gates(namespace: TestNamespace, fleet: Fleet) -> None:
    """No pod of the gang loses a gate or gets devices."""
    reserved = [one for one in fleet.assignments(namespace.name).values() if one["workload"] == "gang"]
    assert not reserved, reserved
    assert gates(namespace, "gang") == [[GATE, KUEUE_GATE]] * 2
