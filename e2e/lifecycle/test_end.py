"""Work ends: it is complete or failed, gives its devices back, and is deleted when its time is over."""

from functools import partial
from http import HTTPStatus

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import IDLE, container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

END_SECONDS = 40


def work(command: str) -> JsonObject:
    return pod_spec(container(command=("sh", "-c", command)), restartPolicy="Never")


def test_finished_workloads_are_complete_failed_or_deleted(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: outcomes are conditions that are stored before pods are deleted; attempts are labels of pods.

    Four workloads side by side: exit code 0; exit code 3, one failure more than allowed; a deadline; a TTL.
    """
    namespace.apply(
        gpuworkload("done", template=work("exit 0")),
        gpuworkload("fails", template=work("echo attempt $GPUFLEET_ATTEMPT; exit 3"), runPolicy={"backoffLimit": 1}),
        gpuworkload("late", template=work("sleep 1000000"), runPolicy={"activeDeadlineSeconds": 8}),
        gpuworkload("expires", template=work("exit 0"), runPolicy={"ttlSecondsAfterFinished": 2}),
    )
    namespace.wait_condition("done", "Complete", "True", "Succeeded", within=END_SECONDS)
    assert not objects.condition(namespace.workload("done"), "Ready"), namespace.describe("done")
    message = namespace.wait_condition("fails", "Failed", "True", "BackoffLimitExceeded", within=END_SECONDS)
    print(message)
    assert "exit code 3" in message
    assert "exceeds spec.runPolicy.backoffLimit (1)" in message
    ended = namespace.all_pods("fails")
    assert sorted(pod["metadata"]["labels"]["gpufleet.dev/attempt"] for pod in ended) == ["0", "1"]
    assert {pod["status"]["phase"] for pod in ended} == {"Failed"}
    status = namespace.workload("fails")["status"]
    assert (status["state"], status["failed"], "completionTime" in status) == ("Failed", 2, True)
    namespace.wait_condition("late", "Failed", "True", "DeadlineExceeded", within=END_SECONDS)
    eventually(lambda: _has_no_pod(namespace, "late"), within=20)
    eventually(lambda: _is_gone(namespace, "expires"), within=20)
    # Nothing is held any more, while the pods of finished work are kept for their logs.
    eventually(lambda: _nothing_reserved(namespace, fleet), within=20)
    assert len(namespace.all_pods("done")) == 1
    namespace.apply(gpuworkload("next", count=16, node=fleet.nodes[0]))
    namespace.verify("next")


def test_gang_starts_again_as_a_whole_and_gives_devices_back(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the stored placement of a pod that is gone shows that a member was lost; all start the next attempt.

    One gang loses a member by an exit code and then by an eviction, one by a deletion. A third one may go on without
    its member, for a while: its member's node takes no pod any more, and after `gangTimeoutSeconds` the whole gang
    waits without devices.
    """
    first, second = fleet.nodes
    policy = {"onReplicaFailure": "RestartReplica"}
    gang = {"gang": True, "strategy": "Spread"}
    once = work("test $GPUFLEET_ATTEMPT-$GPUFLEET_REPLICA != 0-1 || { sleep 3; exit 7; }; " + IDLE)
    namespace.apply(
        gpuworkload("exits", replicas=2, placement=gang, template=once),
        gpuworkload("deleted", replicas=2, placement=gang, template=work(IDLE)),
        gpuworkload(
            "waits",
            replicas=2,
            count=6,
            placement={**gang, "gangTimeoutSeconds": 4},
            template=work(IDLE),
            runPolicy=policy,
        ),
        gpuworkload("filler", count=6, node=first),
    )
    namespace.wait_ready("deleted", "waits", "filler")
    before = _uids(namespace, "deleted")
    fleet.api.delete(f"/api/v1/namespaces/{namespace.name}/pods/{namespace.pods('deleted')[1]['metadata']['name']}")
    for name in ("exits", "deleted"):
        eventually(partial(_runs_attempt, namespace, name, 1), within=END_SECONDS)
        namespace.wait_ready(name)
    assert not before & _uids(namespace, "deleted")
    assert [namespace.workload(name)["status"].get("failed", 0) for name in ("exits", "deleted")] == [1, 0]
    message = namespace.event("exits", "Restarting")
    print(message)
    assert "replicas 0, 1, attempt 1: replica 1: container main: exit code 7" in message
    evicted = namespace.pods("exits")[0]["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": evicted}}
    assert fleet.api.call("POST", f"{pods(namespace.name)}/{evicted}/eviction", body).status == HTTPStatus.CREATED
    eventually(lambda: _runs_attempt(namespace, "exits", 2), within=END_SECONDS)
    assert namespace.workload("exits")["status"]["failed"] == 1, "an eviction is no failure"
    member = next(pod for pod in namespace.pods("waits") if pod["spec"]["nodeName"] == second)
    fleet.cluster.kubectl("cordon", second)
    try:
        fleet.api.delete(f"/api/v1/namespaces/{namespace.name}/pods/{member['metadata']['name']}")
        eventually(lambda: _only_gated(namespace, fleet, "waits"), within=END_SECONDS)
        # While the gang holds its devices, at most two are free there.
        namespace.apply(gpuworkload("other", count=6, node=first))
        namespace.verify("other")
    finally:
        fleet.cluster.kubectl("uncordon", second)


def _runs_attempt(namespace: TestNamespace, name: str, number: int) -> None:
    running = [pod for pod in namespace.pods(name) if pod["status"]["phase"] == "Running"]
    attempts = [pod["metadata"]["labels"]["gpufleet.dev/attempt"] for pod in running]
    assert attempts == [str(number)] * 2, f"attempts {attempts}; {namespace.describe(name)}"
    for pod in running:
        variables = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert variables["GPUFLEET_ATTEMPT"] == str(number)


def _uids(namespace: TestNamespace, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in namespace.pods(name)}


def _only_gated(namespace: TestNamespace, fleet: Fleet, name: str) -> None:
    held = [one for one in fleet.assignments(namespace.name).values() if one["workload"] == name]
    assert not held, f"{name} holds {held}; {namespace.describe(name)}"
    assert all(pod["spec"].get("schedulingGates") for pod in namespace.pods(name)), namespace.describe(name)


def _has_no_pod(namespace: TestNamespace, name: str) -> None:
    left = [pod for pod in namespace.pods(name) if pod["status"]["phase"] == "Running"]
    assert not left, f"{name} still runs; {namespace.describe(name)}"


def _is_gone(namespace: TestNamespace, name: str) -> None:
    assert not namespace.exists(name), namespace.describe(name)
    assert not namespace.all_pods(name), f"{name} is deleted, its pods are not"


def _nothing_reserved(namespace: TestNamespace, fleet: Fleet) -> None:
    held = fleet.assignments(namespace.name)
    assert not held, f"still reserved: {held}"
