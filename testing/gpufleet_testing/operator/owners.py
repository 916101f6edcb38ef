"""Controllers other than the operator on the cluster in memory: they create pods with the label of a GPUWorkload.

A Job counts a pod that is deleted or fails, unless its tracking finalizer was removed before, as the real one does. A
Deployment replaces what is deleted.
"""

from typing import Any

from gpufleet_api.names import API_VERSION, POD_CLAIM, RESOURCE, SCHEDULING_GATE, WORKLOAD_LABEL, Transport
from gpufleet_operator.model.pod_state.owner import JOB_TRACKING_FINALIZER
from gpufleet_testing.operator.apiserver import Json
from gpufleet_testing.operator.cluster import FakeCluster


def adopt(cluster: FakeCluster, **spec: object) -> None:
    """Creates GPUWorkload `train` without a template."""
    body = {"apiVersion": API_VERSION, "metadata": {"name": "train", "namespace": "ml"}, "spec": spec}
    cluster.store("workloads", "ml/train", body)


class FakeOwner:
    """Keeps a number of pods.

    Args:
        cluster: Where the pods are created.
        kind: Job, ReplicaSet or StatefulSet.
        name: Of the owner; also the prefix of its pods.
        pods: How many pods exist at the same time.
        workload: The GPUWorkload that places them.
        count: Devices of each pod.
        transport: How the pods request them.
    """

    def __init__(
        self,
        cluster: FakeCluster,
        kind: str,
        name: str,
        pods: int,
        *,
        workload: str = "train",
        count: int = 1,
        transport: Transport = Transport.DEVICE_PLUGIN,
    ) -> None:
        self._cluster, self._kind, self._name = cluster, kind, name
        self.pods, self._workload, self._count = pods, workload, count
        self._transport = transport
        self._uid = cluster.store("owners", f"ml/{name}", {"metadata": {"name": name}})["metadata"]["uid"]
        self._made = self._position = 0
        self._seen: dict[str, Json] = {}
        """By uid, pods that are not counted yet."""
        self.failed = 0
        self.succeeded = 0

    def step(self) -> None:
        """Counts what ended, and creates what is missing."""
        mine = {p["metadata"]["uid"]: p for p in self._cluster.of("pods") if self._owns(p)}
        self._count_ended(mine)
        if self._kind == "StatefulSet":  # it deletes a pod that ended, because the next one has the same name
            for pod in mine.values():
                if pod["status"]["phase"] in ("Succeeded", "Failed"):
                    self._cluster.remove("pods", f"ml/{pod['metadata']['name']}")
        active = [p for p in mine.values() if p["status"]["phase"] in ("Pending", "Running")]
        taken = {p["metadata"]["labels"].get(_INDEX) for p in active}
        for index in range(self.pods):
            if str(index) not in taken and "deletionTimestamp" not in (self._at(index) or {}):
                self._create(index)

    def _count_ended(self, mine: dict[str, Json]) -> None:
        for _, kind, body in self._cluster.log[self._position :]:
            if kind == "pods" and body["metadata"]["uid"] in self._seen:
                self._seen[body["metadata"]["uid"]] = body
        self._position = len(self._cluster.log)
        for uid, last in list(self._seen.items()):
            phase = last["status"]["phase"]
            if uid in mine and phase not in ("Succeeded", "Failed"):
                continue
            del self._seen[uid]
            if phase == "Succeeded":
                self.succeeded += 1
            elif JOB_TRACKING_FINALIZER in last["metadata"].get("finalizers", ()):
                self.failed += 1

    def _at(self, index: int) -> Any:
        return next((p["metadata"] for p in self._cluster.of("pods") if self._owns(p) and _index(p) == index), None)

    def _owns(self, pod: Json) -> bool:
        return any(reference["uid"] == self._uid for reference in pod["metadata"]["ownerReferences"])

    def _create(self, index: int) -> None:
        self._made += 1
        group = "batch/v1" if self._kind == "Job" else "apps/v1"
        reference = {"apiVersion": group, "kind": self._kind, "name": self._name, "uid": self._uid, "controller": True}
        name = f"{self._name}-{index}" if self._kind == "StatefulSet" else f"{self._name}-{index}-{self._made}"
        meta = {
            "name": name,
            "namespace": "ml",
            "labels": {WORKLOAD_LABEL: self._workload, _INDEX: str(index)},
            "ownerReferences": [reference],
        }
        if self._kind == "Job":
            meta["finalizers"] = [JOB_TRACKING_FINALIZER]
        claims = self._transport is Transport.DRA
        resources = {"claims": [{"name": POD_CLAIM}]} if claims else {"limits": {RESOURCE: str(self._count)}}
        spec: Json = {
            "restartPolicy": "Never",
            "schedulingGates": [{"name": SCHEDULING_GATE}],
            "containers": [{"name": "main", "image": "busybox", "resources": resources}],
        }
        if claims:
            spec["resourceClaims"] = [{"name": POD_CLAIM, "resourceClaimTemplateName": f"gpufleet-{self._workload}"}]
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"phase": "Pending"}}
        stored = self._cluster.store("pods", f"ml/{name}", body)
        self._seen[stored["metadata"]["uid"]] = stored


_INDEX = "batch.kubernetes.io/job-completion-index"


def _index(pod: Json) -> int:
    return int(pod["metadata"]["labels"][_INDEX])
