"""Deployments, Jobs, StatefulSets and bare pods get their GPUs by one label; nothing else is said about GPUs.

Each test verifies that all sources name the same devices for every pod, with both transports.
"""

import pytest

from gpufleet_e2e.kubernetes_features import MUTATING_POLICIES
from gpufleet_e2e.support.api import JsonObject, apps, batch, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import adopting, container, deployment, job, plain_pod, stateful_set
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import repository_root

WORKLOAD = "gpufleet.dev/workload"

pytestmark = [pytest.mark.usefixtures("transport"), pytest.mark.kubernetes(MUTATING_POLICIES)]


def test_pods_of_four_owners_get_their_gpus_by_a_label(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the chart's policy adds gate and limit, the operator reserves, pins and releases.

    An unmodified Deployment, an indexed Job with a gang of 4, a StatefulSet (OrderedReady) and a bare pod.
    """
    namespace.apply(
        adopting("web"),
        adopting("train", count=2, replicas=4, distribution={"items": 1001}),
        adopting("db"),
        adopting("alone", count=2),
    )
    fleet.api.create(apps(namespace.name, "deployments"), deployment("web", 2))
    idle = "echo shard $GPUFLEET_SHARD_START to $GPUFLEET_SHARD_END; trap 'exit 0' TERM; sleep 1000000 & wait"
    fleet.api.create(batch(namespace.name), job("train", 4, idle, completionMode="Indexed"))
    fleet.api.create(apps(namespace.name, "statefulsets"), stateful_set("db", 2))
    namespace.create_pod(plain_pod("alone", labels={WORKLOAD: "alone"}))
    eventually(lambda: namespace.check_placed(web=2, train=4, db=2, alone=1), within=60)
    found = namespace.verify("web", "train", "db", "alone")
    for index, replica in enumerate(found["train"].replicas):
        assert replica.pod.startswith(f"train-{index}-"), "the completion index is not the replica"
    assert [replica.pod for replica in found["db"].replicas] == ["db-0", "db-1"]
    for kind, name in (("deployments", "web"), ("statefulsets", "db")):
        fleet.api.delete(f"{apps(namespace.name, kind)}/{name}")
    fleet.api.delete(f"{batch(namespace.name)}/train")
    fleet.api.delete(f"{pods(namespace.name)}/alone")
    namespace.wait_condition("web", "Ready", "True", "NoPods", within=40)


def test_rollout_restart_on_a_full_fleet_says_what_it_waits_for(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the surge pod waits at its gate with a reason; with maxSurge 0 the Deployment goes on."""
    first = fleet.nodes[0]
    namespace.apply(adopting("web", count=16, requirements={"nodeSelector": {"kubernetes.io/hostname": first}}))
    path = f"{apps(namespace.name, 'deployments')}/web"
    fleet.api.create(apps(namespace.name, "deployments"), deployment("web", 1, maxSurge=1, maxUnavailable=0))
    eventually(lambda: namespace.check_placed(web=1), within=40)
    before = namespace.verify("web")["web"].replicas[0].pod
    restart = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}
    fleet.api.patch(path, {"spec": {"template": restart}})
    waiting = eventually(lambda: _gated(namespace, "web"), within=20)
    message = namespace.event(waiting, "WaitingForDevices", within=20)
    print(message)
    assert "maxSurge 0" in message
    assert any(pod["metadata"]["name"] == before for pod in namespace.all_pods("web")), "the old pod was removed"
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    fleet.api.patch(path, {"spec": {"strategy": rolling}})
    eventually(lambda: _replaced(namespace, "web", before), within=40)
    namespace.verify("web")
    fleet.api.delete(path)


def test_rejected_job_without_retries_completes(namespace: TestNamespace, fleet: Fleet, transport: str) -> None:
    """Mechanism: the tracking finalizer is removed, then the pod is deleted: the Job counts nothing.

    With claims the pod stays, and gets another claim. kube-scheduler rejects the first node: a volume's node affinity
    is known only to it.
    """
    apart = _best_node_is_rejected(namespace, fleet, "once")
    body = job("once", 1, "exit 0")
    body["spec"]["template"]["spec"]["affinity"] = apart
    fleet.api.create(batch(namespace.name), body)
    before = eventually(lambda: _only_pod(namespace, "once"), within=30)["metadata"]["uid"]
    status = eventually(lambda: _complete(namespace, "once"), within=60)
    assert status.get("failed", 0) == 0, f"the Job counted a failure: {status}"
    reason = "Reassigned" if transport == "DRA" else "Unschedulable"
    assert "anti-affinity rules" in namespace.event("once", reason)
    assert (_only_pod(namespace, "once")["metadata"]["uid"] == before) == (transport == "DRA")
    fleet.api.delete(f"{batch(namespace.name)}/once")


def test_rejected_pod_without_an_owner_runs_elsewhere_by_a_claim(
    namespace: TestNamespace, fleet: Fleet, transport: str
) -> None:
    """Mechanism: another claim. Without one, another pod would have to be created, which only its author can do."""
    apart = _best_node_is_rejected(namespace, fleet, "alone")
    namespace.create_pod(plain_pod("alone", labels={WORKLOAD: "alone"}, affinity=apart))
    if transport == "DRA":
        before = _only_pod(namespace, "alone")["metadata"]["uid"]
        eventually(lambda: namespace.check_placed(alone=1), within=60)
        (replica,) = namespace.verify("alone")["alone"].replicas
        assert (replica.node, replica.pod_uid) == (fleet.nodes[1], before)
    else:
        assert "no controller replaces the pod" in namespace.event("alone", "CannotStart", within=30)
    fleet.api.delete(f"{pods(namespace.name)}/alone")


def _best_node_is_rejected(namespace: TestNamespace, fleet: Fleet, name: str) -> JsonObject:
    """Creates a workload that is placed on the first node; returns the affinity of a pod that may not run there."""
    first, second = fleet.nodes
    best, other = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(other, utilization_percent=60)
    eventually(lambda: fleet.check_readings(second, other, utilization_percent=60), within=30)
    blocker = plain_pod("blocker", labels={"app": "blocker"}, nodeSelector={"kubernetes.io/hostname": first})
    fleet.api.create(pods(namespace.name), blocker)
    namespace.wait_running("blocker", within=20)
    namespace.apply(adopting(name, requirements={"includeUUIDs": [best, other]}))
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "blocker"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
    }
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _only_pod(namespace: TestNamespace, name: str) -> JsonObject:
    found = namespace.all_pods(name)
    assert len(found) == 1, f"{name} has {len(found)} pods"
    return found[0]


def test_each_container_gets_its_own_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: one reservation is split in the order in which the containers start.

    A sidecar and two app containers get devices; an init container that ends before, and another app container, do not.
    """
    listed = [{"name": "main", "count": 2}, {"name": "server", "count": 1}, {"name": "second", "count": 1}]
    namespace.apply(adopting("parts", count=4, devices={"count": 4, "containers": listed}))
    body = plain_pod("parts", labels={WORKLOAD: "parts"})
    body["spec"]["initContainers"] = [
        container("prepare", command=("sh", "-c", "! env | grep GPUFLEET_DEVICES")),
        container("server", restartPolicy="Always"),
    ]
    body["spec"]["containers"] += [container("log"), container("second")]
    namespace.create_pod(body)
    eventually(lambda: namespace.check_placed(parts=1), within=40)
    picked = namespace.workload("parts")["status"]["placements"][0]["devices"]
    seen = {name: _visible(namespace, "parts", name) for name in ("server", "main", "second")}
    print(picked, seen)
    assert seen["server"] == picked[:1]
    assert sorted(seen["main"] + seen["second"]) == sorted(picked[1:])
    assert (len(seen["main"]), len(seen["second"])) == (2, 1)
    idle = fleet.collector.environment(namespace.name, "parts", "log")
    assert not [name for name in idle if "GPU" in name or name == "NVIDIA_VISIBLE_DEVICES"], idle
    fleet.api.delete(f"{pods(namespace.name)}/parts")


def test_shares_of_each_container_are_on_different_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: with claims, `distinctAttribute` keeps two shares of one container off the same device."""
    listed = [{"name": "main", "count": 2}, {"name": "second", "count": 2}]
    devices = {"count": 4, "mode": "Shared", "memoryMiB": 8_000, "containers": listed}
    namespace.apply(adopting("parts", devices=devices))
    body = plain_pod("parts", labels={WORKLOAD: "parts"})
    body["spec"]["containers"] += [container("second")]
    namespace.create_pod(body)
    eventually(lambda: namespace.check_placed(parts=1), within=40)
    seen = [_visible(namespace, "parts", name) for name in ("main", "second")]
    print(seen)
    assert [len(set(one)) for one in seen] == [2, 2]
    assert len(set(seen[0] + seen[1])) == 4
    fleet.api.delete(f"{pods(namespace.name)}/parts")


def test_pods_of_a_cron_job_get_their_gpus_by_a_label(namespace: TestNamespace, fleet: Fleet) -> None:
    """The CronJob starts a Job at the next full minute. It completes without a failure that the Job counts."""
    namespace.apply(adopting("nightly", count=2))
    body = job("nightly", 1, 'test -n "$GPUFLEET_DEVICES" && sleep 12')
    cron = {"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": body["spec"]}}
    head = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}}
    path = batch(namespace.name, "cronjobs")
    fleet.api.create(path, {**head, "spec": cron})
    created = eventually(lambda: _only_job(namespace), within=90)
    namespace.verify("nightly")
    status = eventually(lambda: _complete(namespace, created), within=60)
    assert status.get("failed", 0) == 0, f"the Job counted a failure: {status}"
    fleet.api.delete(f"{path}/nightly")


def test_examples_are_accepted(namespace: TestNamespace, fleet: Fleet) -> None:
    for path in sorted((repository_root() / "examples" / "owners").glob("*.yaml")):
        fleet.cluster.kubectl("apply", "--dry-run=server", f"--namespace={namespace.name}", "-f", str(path))


def _visible(namespace: TestNamespace, pod: str, name: str) -> list[str]:
    environment = namespace.fleet.collector.environment(namespace.name, pod, name)
    return environment["NVIDIA_VISIBLE_DEVICES"].split(",")


def _only_job(namespace: TestNamespace) -> str:
    found = [one["metadata"]["name"] for one in namespace.fleet.api.list(batch(namespace.name))]
    assert len(found) == 1, f"Jobs: {found}"
    return str(found[0])


def _gated(namespace: TestNamespace, name: str) -> str:
    gated = [pod["metadata"]["name"] for pod in namespace.all_pods(name) if pod["spec"].get("schedulingGates")]
    assert len(gated) == 1, f"gated pods of {name}: {gated}"
    return str(gated[0])


def _replaced(namespace: TestNamespace, name: str, before: str) -> None:
    names = [pod["metadata"]["name"] for pod in namespace.all_pods(name)]
    assert before not in names, f"{before} still exists"
    namespace.check_placed(**{name: 1})


def _complete(namespace: TestNamespace, name: str) -> JsonObject:
    status: JsonObject = namespace.fleet.api.get(f"{batch(namespace.name)}/{name}")["status"]
    done = [one["type"] for one in status.get("conditions", []) if one["status"] == "True"]
    assert "Failed" not in done, status
    assert "Complete" in done, f"{status}; {namespace.describe(name)}"
    return status
