"""Pods as real controllers make them: owner, rank and run, and what is decided on them.

The shapes are those of Kubernetes 1.36, JobSet 0.10, LeaderWorkerSet 0.7, KubeRay 1.5, Kubeflow Trainer 2 (which
creates a JobSet) and Kubeflow's training operator 1.9.
"""

from typing import Any

import pytest

from gpufleet_api.names import SCHEDULING_GATE
from gpufleet_operator.cache import decode_pod
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.owner import JOB_TRACKING_FINALIZER, PodOwner
from gpufleet_testing.operator import make, owned

Json = dict[str, Any]


def decoded(
    name: str,
    owner: tuple[str, str, str] | None,
    labels: Json,
    annotations: Json | None = None,
    finalizers: list[str] | None = None,
    **spec: object,
) -> Pod:
    """A gated pod with the label of workload `train`; `owner` is API version, kind and name."""
    references = []
    if owner is not None:
        version, kind, controller = owner
        reference = {"apiVersion": version, "kind": kind, "name": controller, "uid": f"uid-{controller}"}
        references = [{**reference, "controller": True, "blockOwnerDeletion": True}]
    meta = {
        "name": name,
        "namespace": "ml",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"gpufleet.dev/workload": "train", **labels},
        "annotations": annotations or {},
        "ownerReferences": references,
        "finalizers": finalizers or [],
    }
    containers = [{"name": "main", "resources": {"limits": {"gpufleet.dev/gpu": "1"}}}]
    spec = {"containers": containers, "schedulingGates": [{"name": SCHEDULING_GATE}], **spec}
    return decode_pod.pod({"metadata": meta, "spec": spec, "status": {}})


def of_job(name: str, job: str, index: int | None = None, **labels: str) -> Pod:
    """A pod of a Job; `index` of an indexed one."""
    own = {"batch.kubernetes.io/job-name": job, "batch.kubernetes.io/controller-uid": f"uid-{job}", "job-name": job}
    indexed = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
    return decoded(name, ("batch/v1", "Job", job), {**own, **indexed, **labels}, indexed, [JOB_TRACKING_FINALIZER])


def of_jobset(
    global_index: int,
    completion_index: int,
    *,
    jobs: int,
    attempt: int = 0,
    job: str = "workers",
    labels: Json | None = None,
) -> Pod:
    """A pod of a JobSet `js`."""
    given = {
        "jobset.sigs.k8s.io/jobset-name": "js",
        "jobset.sigs.k8s.io/jobset-uid": "uid-js",
        "jobset.sigs.k8s.io/replicatedjob-name": job,
        "jobset.sigs.k8s.io/replicatedjob-replicas": str(jobs),
        "jobset.sigs.k8s.io/global-replicas": str(jobs),
        "jobset.sigs.k8s.io/job-index": str(global_index),
        "jobset.sigs.k8s.io/job-global-index": str(global_index),
        "jobset.sigs.k8s.io/job-key": f"key-{global_index}",
        "jobset.sigs.k8s.io/restart-attempt": str(attempt),
        **(labels or {}),
    }
    name = f"js-{job}-{global_index}"
    return of_job(f"{name}-{completion_index}-abcde", name, completion_index, **given)


def of_leader_worker_set(group: int, worker: int, size: int = 4) -> Pod:
    """A pod of a LeaderWorkerSet `lws`: leaders are of one StatefulSet, the workers of a group of another one."""
    labels = {
        "leaderworkerset.sigs.k8s.io/name": "lws",
        "leaderworkerset.sigs.k8s.io/group-index": str(group),
        "leaderworkerset.sigs.k8s.io/group-key": f"key-{group}",
        "leaderworkerset.sigs.k8s.io/worker-index": str(worker),
        "apps.kubernetes.io/pod-index": str(worker or group),
    }
    controller = f"lws-{group}" if worker else "lws"
    name = f"lws-{group}-{worker}" if worker else f"lws-{group}"
    annotations = {"leaderworkerset.sigs.k8s.io/size": str(size)}
    return decoded(name, ("apps/v1", "StatefulSet", controller), labels, annotations)


def of_ray(name: str, node_type: str, **labels: str) -> Pod:
    """A pod of a RayCluster `ray`."""
    group = "headgroup" if node_type == "head" else "gpu-group"
    given = {
        "app.kubernetes.io/created-by": "kuberay-operator",
        "app.kubernetes.io/name": "kuberay",
        "ray.io/cluster": "ray",
        "ray.io/group": group,
        "ray.io/identifier": f"ray-{node_type}",
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": node_type,
    }
    return decoded(name, ("ray.io/v1", "RayCluster", "ray"), {**given, **labels})


def of_training_operator(kind: str, replica_type: str, index: int) -> Pod:
    labels = {
        "training.kubeflow.org/job-name": "pt",
        "training.kubeflow.org/operator-name": f"{kind.lower()}-controller",
        "training.kubeflow.org/replica-index": str(index),
        "training.kubeflow.org/replica-type": replica_type,
    }
    return decoded(f"pt-{replica_type}-{index}", ("kubeflow.org/v1", kind, "pt"), labels)


RANKS = {
    "Deployment": (decoded("web-1-a", ("apps/v1", "ReplicaSet", "web-1"), {"pod-template-hash": "1"}), ()),
    "StatefulSet": (decoded("db-2", ("apps/v1", "StatefulSet", "db"), {"apps.kubernetes.io/pod-index": "2"}), (2,)),
    "Job": (of_job("job-abcde", "job"), ()),
    "indexed Job": (of_job("job-3-abcde", "job", 3), (3,)),
    "JobSet": (of_jobset(1, 2, jobs=2), (1, 2)),
    "JobSet of one Job": (of_jobset(0, 2, jobs=1), (2,)),
    "Trainer": (
        of_jobset(0, 1, jobs=1, job="node", labels={"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}),
        (1,),
    ),
    "LeaderWorkerSet leader": (of_leader_worker_set(2, 0), (8,)),
    "LeaderWorkerSet worker": (of_leader_worker_set(1, 3), (7,)),
    "RayCluster head": (of_ray("ray-head-abcde", "head"), (0, 0, 0)),
    "RayCluster worker": (of_ray("ray-gpu-group-worker-abcde", "worker"), ()),
    "RayCluster host": (
        of_ray("w", "worker", **{"ray.io/worker-group-replica-index": "2", "ray.io/replica-host-index": "1"}),
        (1, 2, 1),
    ),
    "PyTorchJob master": (of_training_operator("PyTorchJob", "master", 0), (0, 0)),
    "PyTorchJob worker": (of_training_operator("PyTorchJob", "worker", 2), (1, 2)),
    "MPIJob launcher": (of_training_operator("MPIJob", "launcher", 0), (0, 0)),
    "bare pod": (decoded("alone", None, {}), ()),
}


@pytest.mark.parametrize(("pod", "rank"), RANKS.values(), ids=RANKS)
def test_rank_is_read_from_the_labels_of_the_owner(pod: Pod, rank: tuple[int, ...]) -> None:
    assert pod.rank == rank
    assert (pod.workload_label, pod.workload_uid) == ("train", "")


GANGS = {
    "indexed Job": [of_job(f"job-{index}-a", "job", index) for index in range(3)],
    "JobSet": [of_jobset(job, index, jobs=2) for job in range(2) for index in range(2)],
    "Trainer": [of_jobset(0, index, jobs=1, job="node") for index in range(2)],
    "LeaderWorkerSet": [of_leader_worker_set(group, worker, size=2) for group in range(2) for worker in range(2)],
    "RayCluster": [of_ray("ray-head", "head"), of_ray("ray-worker-a", "worker"), of_ray("ray-worker-b", "worker")],
    "PyTorchJob": [
        of_training_operator("PyTorchJob", "master", 0),
        *(of_training_operator("PyTorchJob", "worker", index) for index in range(2)),
    ],
}


@pytest.mark.parametrize("pods", GANGS.values(), ids=GANGS)
def test_gang_of_each_controller_is_placed_in_order_once_it_is_complete(pods: list[Pod]) -> None:
    gang, node = owned.workload(replicas=len(pods), placement={"gang": True}), make.telemetry(devices=4)

    incomplete = decide(make.snapshot(gang, *pods[1:], node))
    actions = decide(make.snapshot(gang, *reversed(pods), node))

    assert not incomplete.reserves
    assert not incomplete.releases
    (reserve,) = actions.reserves
    placed = {assignment.replica: assignment.pod for assignment in reserve.assignments}
    assert placed == {index: pod.name for index, pod in enumerate(pods)}
    assert {release.pod_uid for release in actions.releases} == {pod.uid for pod in pods}


def test_completion_index_annotation_counts_without_the_label() -> None:
    annotations = {"batch.kubernetes.io/job-completion-index": "4"}

    assert decoded("job-4-a", ("batch/v1", "Job", "job"), {}, annotations).rank == (4,)


@pytest.mark.parametrize("index", ["", "-1", "one", "²"])
def test_malformed_index_is_no_rank(index: str) -> None:
    assert decoded("db", None, {"apps.kubernetes.io/pod-index": index}).rank == ()


def test_controller_is_the_owner() -> None:
    pod = of_job("job-abcde", "job")

    assert pod.owner == PodOwner("Job", "job", "uid-job", "batch")
    assert pod.owner.is_job
    assert pod.finalizers == (JOB_TRACKING_FINALIZER,)
    assert decoded("alone", None, {}).owner is None


def test_pod_of_the_operator_has_no_other_owner() -> None:
    pod = decoded("train-0", ("gpufleet.dev/v1alpha1", "GPUWorkload", "train"), {})

    assert (pod.owner, pod.workload_uid) == (None, "uid-train")


def test_run_is_the_job_or_the_attempt_of_a_jobset() -> None:
    assert of_job("job-abcde", "job").run == "uid-job"
    assert of_jobset(0, 0, jobs=2).run == of_jobset(1, 1, jobs=2).run == "uid-js/0"
    assert of_jobset(0, 0, jobs=2, attempt=1).run == "uid-js/1"
    assert decoded("web", ("apps/v1", "ReplicaSet", "web-1"), {}).run == ""


def test_device_requests_are_listed_in_the_order_of_start() -> None:
    limits = {"limits": {"gpufleet.dev/gpu": "2", "cpu": "1"}}
    inits = [
        {"name": "warm", "resources": limits},
        {"name": "server", "restartPolicy": "Always", "resources": limits},
        {"name": "idle"},
    ]

    found = decoded("a", None, {}, initContainers=inits).device_requests

    assert [(r.container, r.path, r.of("gpufleet.dev/gpu"), r.init) for r in found] == [
        ("warm", "spec.initContainers[0]", 2, True),
        ("server", "spec.initContainers[1]", 2, False),
        ("main", "spec.containers[0]", 1, False),
    ]
