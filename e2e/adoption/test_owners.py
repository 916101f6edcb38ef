"""Deployments, Jobs, StatefulSets and bare pods get their GPUs by one label; nothing else is said about GPUs.

Each test verifies that all six sources name the same devices for every pod.
"""

from gpufleet_e2e.support.api import JsonObject, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, adopting, container, labeled_template, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_testbed import repository_root

APPS = "/apis/apps/v1/namespaces/{}"
BATCH = "/apis/batch/v1/namespaces/{}"
WORKLOAD = "gpufleet.dev/workload"


def apps(namespace: TestNamespace, kind: str) -> str:
    return f"{APPS.format(namespace.name)}/{kind}"


def jobs(namespace: TestNamespace) -> str:
    return f"{BATCH.format(namespace.name)}/jobs"


def deployment(name: str, replicas: int, **strategy: object) -> JsonObject:
    selector = {"matchLabels": {"app": name}}
    rolling = {"type": "RollingUpdate", "rollingUpdate": strategy} if strategy else {"type": "RollingUpdate"}
    spec = {"replicas": replicas, "selector": selector, "strategy": rolling, "template": labeled_template(name)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def job(name: str, pods_at_once: int, command: str, **spec: object) -> JsonObject:
    template = labeled_template(name, restart_policy="Never")
    template["spec"]["containers"][0]["command"] = ["sh", "-c", command]
    full = {"parallelism": pods_at_once, "completions": pods_at_once, "backoffLimit": 0, "template": template, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": full}


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
    fleet.api.create(apps(namespace, "deployments"), deployment("web", 2))
    idle = "echo shard $GPUFLEET_SHARD_START to $GPUFLEET_SHARD_END; trap 'exit 0' TERM; sleep 1000000 & wait"
    fleet.api.create(jobs(namespace), job("train", 4, idle, completionMode="Indexed"))
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "db"}}, "serviceName": "db"}
    stateful = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}}
    stateful |= {"spec": {**spec, "template": labeled_template("db")}}
    fleet.api.create(apps(namespace, "statefulsets"), stateful)
    fleet.api.create(pods(namespace.name), plain_pod("alone", labels={WORKLOAD: "alone"}))
    eventually(lambda: _placed(namespace, web=2, train=4, db=2, alone=1), within=60)
    found = namespace.verify("web", "train", "db", "alone")
    for index, replica in enumerate(found["train"].replicas):
        assert replica.pod.startswith(f"train-{index}-"), "the completion index is not the replica"
    assert [replica.pod for replica in found["db"].replicas] == ["db-0", "db-1"]
    for kind, name in (("deployments", "web"), ("statefulsets", "db")):
        fleet.api.delete(f"{apps(namespace, kind)}/{name}")
    fleet.api.delete(f"{jobs(namespace)}/train")
    fleet.api.delete(f"{pods(namespace.name)}/alone")
    namespace.wait_condition("web", "Ready", "True", "NoPods", within=40)


def test_rollout_restart_on_a_full_fleet_says_what_it_waits_for(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the surge pod waits at its gate with a reason; with maxSurge 0 the Deployment goes on."""
    first = fleet.nodes[0]
    namespace.apply(adopting("web", count=16, requirements={"nodeSelector": {"kubernetes.io/hostname": first}}))
    path = f"{apps(namespace, 'deployments')}/web"
    fleet.api.create(apps(namespace, "deployments"), deployment("web", 1, maxSurge=1, maxUnavailable=0))
    eventually(lambda: _placed(namespace, web=1), within=40)
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


def test_rejected_job_without_retries_completes(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: the tracking finalizer is removed, then the pod is deleted: the Job counts nothing.

    kube-scheduler rejects the first node: a volume's node affinity is known only to it.
    """
    first, second = fleet.nodes
    best, other = fleet.gpus[first].uuids[0], fleet.gpus[second].uuids[0]
    fleet.gpus[second].report(other, utilization_percent=60)
    eventually(lambda: _reports(fleet, second, other, 60), within=10)
    blocker = plain_pod("blocker", labels={"app": "blocker"}, nodeSelector={"kubernetes.io/hostname": first})
    fleet.api.create(pods(namespace.name), blocker)
    eventually(lambda: _running(namespace, "blocker"), within=20)
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "blocker"}},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
    }
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    namespace.apply(adopting("once", requirements={"includeUUIDs": [best, other]}))
    body = job("once", 1, "exit 0")
    body["spec"]["template"]["spec"]["affinity"] = apart
    fleet.api.create(jobs(namespace), body)
    status = eventually(lambda: _complete(namespace, "once"), within=60)
    assert status.get("failed", 0) == 0, f"the Job counted a failure: {status}"
    assert "anti-affinity rules" in namespace.event("once", "Unschedulable")
    fleet.api.delete(f"{jobs(namespace)}/once")


def test_labeled_pod_that_cannot_be_placed_is_rejected(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: policies of the chart. A misspelled label never runs without a reservation."""
    namespace.apply(adopting("train"))
    typo = fleet.api.try_create(pods(namespace.name), plain_pod("a", labels={WORKLOAD: "tarin"}))
    print(typo.message)
    assert not typo.allowed
    assert f"GPUWorkload tarin does not exist in namespace {namespace.name}" in typo.message
    several = plain_pod("b", labels={WORKLOAD: "train"})
    several["spec"] = pod_spec(*[{**pod_spec()["containers"][0], "name": name} for name in ("one", "two")])
    unclear = fleet.api.try_create(pods(namespace.name), several)
    print(unclear.message)
    assert "no container requests GPUs: name the container in spec.devices of the GPUWorkload" in unclear.message
    by_hand = plain_pod("c", labels={WORKLOAD: "train"}, count=1, schedulingGates=[{"name": GATE}])
    fleet.api.create(pods(namespace.name), by_hand)
    eventually(lambda: _placed(namespace, train=1), within=20)
    namespace.verify("train")
    fleet.api.delete(f"{pods(namespace.name)}/c")


def test_sidecar_and_app_container_get_their_own_devices(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: one reservation is split in the order in which the kubelet admits the containers."""
    containers = [{"name": "main", "count": 2}, {"name": "server", "count": 1}]
    namespace.apply(adopting("parts", count=3, devices={"count": 3, "containers": containers}))
    body = plain_pod("parts", labels={WORKLOAD: "parts"})
    body["spec"]["initContainers"] = [container("server", restartPolicy="Always")]
    fleet.api.create(pods(namespace.name), body)
    eventually(lambda: _placed(namespace, parts=1), within=40)
    picked = namespace.workload("parts")["status"]["placements"][0]["devices"]
    seen = {
        name: fleet.collector.environment(namespace.name, "parts", name)["NVIDIA_VISIBLE_DEVICES"].split(",")
        for name in ("server", "main")
    }
    print(picked, seen)
    assert seen["server"] == picked[:1]
    assert sorted(seen["main"]) == sorted(picked[1:])
    fleet.api.delete(f"{pods(namespace.name)}/parts")


def test_job_with_a_queue_has_the_limit_in_its_template(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a policy on Jobs, because Kueue counts the template. The Job is suspended, as Kueue has it."""
    namespace.apply(adopting("queued", count=3))
    body = job("queued", 1, "exit 0", suspend=True)
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
    created = fleet.api.try_create(jobs(namespace), body, dry_run=True).body
    resources = created["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"gpufleet.dev/gpu": "3"}, "requests": {"gpufleet.dev/gpu": "3"}}
    body["spec"]["template"]["metadata"]["labels"][WORKLOAD] = "tarin"
    rejected = fleet.api.try_create(jobs(namespace), body, dry_run=True)
    print(rejected.message)
    assert "Kueue counts the pod template, which requests no GPUs" in rejected.message


def test_examples_are_accepted(namespace: TestNamespace, fleet: Fleet) -> None:
    for path in sorted((repository_root() / "examples" / "owners").glob("*.yaml")):
        fleet.cluster.kubectl("apply", "--dry-run=server", f"--namespace={namespace.name}", "-f", str(path))


def _placed(namespace: TestNamespace, **replicas: int) -> None:
    for name, number in replicas.items():
        status = namespace.workload(name).get("status", {})
        assert status.get("ready") == f"{number}/{number}", namespace.describe(name)
        assert status.get("allocatedReplicas") == number, namespace.describe(name)


def _gated(namespace: TestNamespace, name: str) -> str:
    gated = [pod["metadata"]["name"] for pod in namespace.all_pods(name) if pod["spec"].get("schedulingGates")]
    assert len(gated) == 1, f"gated pods of {name}: {gated}"
    return str(gated[0])


def _replaced(namespace: TestNamespace, name: str, before: str) -> None:
    names = [pod["metadata"]["name"] for pod in namespace.all_pods(name)]
    assert before not in names, f"{before} still exists"
    _placed(namespace, **{name: 1})


def _complete(namespace: TestNamespace, name: str) -> JsonObject:
    status: JsonObject = namespace.fleet.api.get(f"{jobs(namespace)}/{name}")["status"]
    done = [one["type"] for one in status.get("conditions", []) if one["status"] == "True"]
    assert "Failed" not in done, status
    assert "Complete" in done, f"{status}; {namespace.describe(name)}"
    return status


def _running(namespace: TestNamespace, pod: str) -> None:
    status = namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["status"]
    assert status["phase"] == "Running", f"{pod} is {status['phase']}"


def _reports(fleet: Fleet, node: str, uuid: str, percent: int) -> None:
    devices = fleet.telemetry(node)["status"]["devices"]
    said = next(one["utilizationPercent"] for one in devices if one["uuid"] == uuid)
    assert said == percent, f"{uuid} is reported at {said}%"
