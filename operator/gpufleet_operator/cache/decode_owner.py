"""Decodes what controls a pod, and the pod's place among the others, from labels that controllers give their pods.

The labels are those of Jobs and StatefulSets, JobSet (and Kubeflow Trainer 2, which creates JobSets), LeaderWorkerSet,
KubeRay and Kubeflow's training operator 1.
"""

from collections.abc import Iterable, Mapping

from gpufleet_api.names import API_VERSION, GROUP, POD_INDEX_LABEL, WORKLOAD_KIND
from gpufleet_operator.model.lenient_json import Json, index, maps, text
from gpufleet_operator.model.pod_state.owner import DeviceRequest, PodOwner
from gpufleet_operator.pods import requests

_JOB_INDEX = "batch.kubernetes.io/job-completion-index"
_JOBSET = "jobset.sigs.k8s.io/"
_LWS = "leaderworkerset.sigs.k8s.io/"
_RAY = "ray.io/"
_TRAINING = "training.kubeflow.org/"
_FIRST_TYPES = ("master", "chief", "launcher")
"""Values of the replica type of the pod that has rank 0."""


def owner(references: Iterable[Json]) -> PodOwner | None:
    """Returns the controller of a pod; None for a pod without one, and for one of a GPUWorkload."""
    for reference in references:
        group = text(reference.get("apiVersion")).rpartition("/")[0]
        kind = text(reference.get("kind"))
        if reference.get("controller") is True and (group, kind) != (GROUP, WORKLOAD_KIND):
            return PodOwner(kind, text(reference.get("name")), text(reference.get("uid")), group)
    return None


def workload_uid(references: Iterable[Json]) -> str:
    """Returns the uid of the GPUWorkload that controls a pod; empty: none does."""
    for ref in references:
        if ref.get("controller") and ref.get("kind") == WORKLOAD_KIND and ref.get("apiVersion") == API_VERSION:
            return text(ref.get("uid"))
    return ""


def rank(labels: Json, annotations: Json) -> tuple[int, ...]:
    """Returns the place of a pod among those of its owner. One number is its index, several are for sorting."""
    found = {key: text(value) for key, value in {**annotations, **labels}.items()}
    for rule in (_of_leader_worker_set, _of_jobset, _of_training_operator, _of_ray):
        numbers = rule(found)
        if numbers is not None:
            return numbers
    for key in (_JOB_INDEX, POD_INDEX_LABEL):
        member = index(found.get(key))
        if member is not None:
            return (member,)
    return ()


def run(labels: Json, found: PodOwner | None) -> str:
    """Returns the identity of the Job that a pod is part of; of all Jobs of one attempt of a JobSet it is the same."""
    jobset = text(labels.get(f"{_JOBSET}jobset-uid")) or text(labels.get(f"{_JOBSET}jobset-name"))
    if jobset:
        return f"{jobset}/{text(labels.get(f'{_JOBSET}restart-attempt'))}"
    return found.uid if found is not None and found.is_job else ""


def device_requests(spec: Json) -> tuple[DeviceRequest, ...]:
    """Returns the requests of extended resources, of init containers first, in the order in which they start."""
    found = []
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(maps(spec.get(kind))):
            asked = requests.container_requests(container)
            amounts = tuple((name, n) for name, n in asked.items() if name not in requests.NATIVE_RESOURCES and n)
            if amounts:
                init = kind == "initContainers" and container.get("restartPolicy") != "Always"
                path = f"spec.{kind}[{number}]"
                found.append(DeviceRequest(text(container.get("name")), path, amounts, init))
    return tuple(found)


def _of_leader_worker_set(found: Mapping[str, str]) -> tuple[int, ...] | None:
    group, worker = index(found.get(f"{_LWS}group-index")), index(found.get(f"{_LWS}worker-index"))
    if group is None or worker is None:
        return None
    size = index(found.get(f"{_LWS}size"))
    return (group, worker) if size is None else (group * size + worker,)


def _of_jobset(found: Mapping[str, str]) -> tuple[int, ...] | None:
    job = index(found.get(f"{_JOBSET}job-global-index"))
    if job is None:
        return None
    member = index(found.get(_JOB_INDEX)) or 0
    return (member,) if found.get(f"{_JOBSET}global-replicas") == "1" else (job, member)


def _of_training_operator(found: Mapping[str, str]) -> tuple[int, ...] | None:
    member, kind = index(found.get(f"{_TRAINING}replica-index")), found.get(f"{_TRAINING}replica-type", "")
    return None if member is None else (int(kind.lower() not in _FIRST_TYPES), member)


def _of_ray(found: Mapping[str, str]) -> tuple[int, ...] | None:
    if f"{_RAY}node-type" not in found:
        return None
    if found[f"{_RAY}node-type"] == "head":
        return (0, 0, 0)
    replica = index(found.get(f"{_RAY}worker-group-replica-index"))
    return () if replica is None else (1, replica, index(found.get(f"{_RAY}replica-host-index")) or 0)
