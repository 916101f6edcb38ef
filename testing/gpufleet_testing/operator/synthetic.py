"""A large fleet as JSON bodies of the API, one object at a time: nodes, agents' reports, running and waiting pods.

Node `node-00001` has eight GPUs and twenty pods of others. Running workload i has one replica with one GPU on node
i modulo the number of nodes. Statuses are as the operator writes them, so that a pass over the fleet writes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gpufleet_api.names import (
    AGENT_FIELD_MANAGER,
    AGENT_LEASE,
    AGENT_LEASE_PREFIX,
    API_VERSION,
    ATTEMPT_LABEL,
    LEASE_LABEL,
    NODE_CONDITION,
    OBSERVED_AT_ANNOTATION,
    REPLICA_LABEL,
    RESOURCE,
    SCHEDULING_GATE,
    SHARED_RESOURCE,
    SHARED_SLOTS,
    TEMPLATE_HASH_LABEL,
    WORKLOAD_KIND,
    WORKLOAD_LABEL,
)
from gpufleet_common import timestamps
from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.pods.template_hash import template_hash

Body = dict[str, Any]

GPUS = 8
OTHER_PODS = 20
_NAMESPACE = "ml"
_HEALTHY = {
    "status": "True",
    "reason": "DevicesHealthy",
    "message": f"{GPUS} of {GPUS} devices are healthy",
}


@dataclass(frozen=True, slots=True)
class SyntheticFleet:
    """Bodies of a fleet at one time; equal arguments give equal bodies."""

    nodes: int
    running: int
    waiting: int
    now: datetime

    def node_name(self, number: int) -> str:
        return f"node-{number:05d}"

    def uuid(self, node: int, index: int) -> str:
        return f"GPU-{node:08x}-0000-4000-8000-{index:012x}"

    def node_of(self, number: int) -> int:
        """Number of the node on which a running workload has its pod."""
        return number % self.nodes

    def on_node(self, node: int) -> Sequence[int]:
        """Numbers of the running workloads on a node."""
        return range(node, self.running, self.nodes)

    def node(self, number: int) -> Body:
        name = self.node_name(number)
        allocatable = {"cpu": "96", "memory": "1Ti", "pods": "110", RESOURCE: str(GPUS)}
        allocatable[SHARED_RESOURCE] = str(GPUS * SHARED_SLOTS)
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % 3}"}
        return {
            "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "40", "labels": labels},
            "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
            "status": {
                "allocatable": allocatable,
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"},
                    {
                        **_HEALTHY,
                        "type": NODE_CONDITION,
                        "lastTransitionTime": timestamps.seconds(self.now - timedelta(hours=3)),
                    },
                ],
            },
        }

    def telemetry(self, number: int, *, version: int = 50, celsius: int = 40, at: datetime | None = None) -> Body:
        """The report of a node's agent, written at `at` (default: a second ago), with the reservations of its pods."""
        name, written = self.node_name(number), at or self.now - timedelta(seconds=1)
        since = timestamps.seconds(self.now - timedelta(hours=3))
        moment = timestamps.micros(written)
        holders = dict(enumerate(self.on_node(number)))
        return {
            "metadata": {
                "name": name,
                "uid": f"uid-{name}-telemetry",
                "generation": 5,
                "resourceVersion": str(version),
                "managedFields": [
                    {
                        "manager": AGENT_FIELD_MANAGER,
                        "subresource": "status",
                        "time": timestamps.seconds(written),
                    }
                ],
            },
            "spec": {"assignments": [self._assignment(each) for each in holders.values()]},
            "status": {
                "assignmentsGeneration": 5,
                "observedAt": moment,
                "sampleTime": moment,
                "agentVersion": "0.1.0",
                "driverVersion": "570.86.15",
                "bootId": f"boot-{number}",
                "processesObserved": True,
                "summary": {"state": "Ready", "devices": GPUS, "healthy": GPUS, "allocated": len(holders)},
                "devices": [self._device(number, index, holders.get(index), moment, celsius) for index in range(GPUS)],
                "conditions": [
                    {
                        "type": "Fresh",
                        "status": "True",
                        "reason": "Fresh",
                        "message": "agent reports current measurements",
                        "lastTransitionTime": since,
                    },
                    {**_HEALTHY, "type": "Healthy", "lastTransitionTime": since},
                ],
            },
        }

    def _device(self, node: int, index: int, holder: int | None, moment: str, celsius: int) -> Body:
        busy = holder is not None
        statistics = {"mean": 40, "max": 44, "p95": 43}
        device = {
            "uuid": self.uuid(node, index),
            "index": index,
            "model": "NVIDIA H100 80GB HBM3",
            "architecture": "Hopper",
            "computeCapability": "9.0",
            "pciBusId": f"00000000:{index:02X}:00.0",
            "numaNode": index // 4,
            "nvlinkPeers": [self.uuid(node, other) for other in range(GPUS) if other != index],
            "sampleTime": moment,
            "memoryTotalMiB": 81559,
            "memoryUsedMiB": 60_000 if busy else 500,
            "memoryReservedMiB": 600,
            "utilizationPercent": 90 if busy else 0,
            "memoryUtilizationPercent": 50 if busy else 0,
            "temperatureCelsius": celsius + index,
            "powerMilliwatts": 600_000 if busy else 70_000,
            "powerLimitMilliwatts": 700_000,
            "clocks": {"smMHz": 1980, "memoryMHz": 2619},
            "ecc": {"correctedVolatile": 0, "uncorrectedVolatile": 0},
            "rowRemap": {"pending": False, "failed": False},
            "migMode": "Disabled",
            "processCount": int(busy),
            "health": {"state": "Healthy", "since": timestamps.seconds(self.now - timedelta(days=1))},
            "window": {
                "samples": 60,
                "seconds": 59,
                "utilizationPercent": statistics,
                "memoryUsedMiB": statistics,
                "temperatureCelsius": statistics,
                "powerMilliwatts": statistics,
            },
        }
        if holder is not None:
            pod = self.pod_name(holder)
            device["allocatedTo"] = [
                {"namespace": _NAMESPACE, "pod": pod, "container": "main", "podUID": f"uid-{pod}"},
            ]
        return device

    def _assignment(self, number: int) -> Body:
        pod = self.pod_name(number)
        node = self.node_of(number)
        return {
            "podUID": f"uid-{pod}",
            "namespace": _NAMESPACE,
            "pod": pod,
            "container": "main",
            "workload": self.workload_name(number),
            "workloadUID": f"uid-{self.workload_name(number)}",
            "replica": 0,
            "replicas": 1,
            "resource": RESOURCE,
            "devices": [self.uuid(node, number // self.nodes)],
            "decidedAt": timestamps.micros(self.now - timedelta(hours=1)),
        }

    def workload_name(self, number: int) -> str:
        return f"job-{number:06d}"

    def pod_name(self, number: int) -> str:
        return f"{self.workload_name(number)}-0-abcde"

    def workload(self, number: int, **spec: object) -> Body:
        """A workload without a status; from number `running` on, a waiting one whose question nothing can answer."""
        name = self.workload_name(number)
        if number >= self.running and not spec:
            spec = {"requirements": {"minFreeMemoryMiB": 100_000 + number % 10}}
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "main",
                        "image": "registry.example.com/train:1.2.3",
                        "command": ["python", "-m", "train", "--epochs", "100"],
                        "env": [{"name": f"SETTING_{key}", "value": str(key)} for key in range(8)],
                        "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"memory": "64Gi"}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": f"data-{number}"}}],
            },
        }
        created = self.now - (timedelta(hours=2) if number < self.running else timedelta(minutes=5))
        return {
            "apiVersion": API_VERSION,
            "kind": WORKLOAD_KIND,
            "metadata": {
                "name": name,
                "namespace": _NAMESPACE,
                "uid": f"uid-{name}",
                "generation": 1,
                "resourceVersion": "10",
                "creationTimestamp": timestamps.seconds(created),
            },
            "spec": {
                "replicas": 1,
                "devices": {"count": 1},
                "template": template,
                "network": {"enableDNSHostnames": False},
                **spec,
            },
        }

    def pod(self, number: int, template_hash: str, *, version: int = 20) -> Body:
        """The pod of a workload: running on its node, or gated."""
        name, workload = self.pod_name(number), self.workload_name(number)
        runs = number < self.running
        started = timestamps.seconds(self.now - timedelta(minutes=50))
        spec: Body = {
            "containers": [
                {
                    "name": "main",
                    "resources": {"requests": {"cpu": "8", "memory": "64Gi", RESOURCE: "1"}},
                }
            ],
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "schedulerName": "default-scheduler",
            "priority": 0,
            "terminationGracePeriodSeconds": 30,
        }
        status: Body = {"phase": "Pending"}
        if runs:
            node = self.node_name(self.node_of(number))
            term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
            spec["nodeName"] = node
            spec["affinity"] = {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
            }
            held = [{"resourceID": self.uuid(self.node_of(number), number // self.nodes)}]
            status = {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [
                    {
                        "name": "main",
                        "ready": True,
                        "started": True,
                        "image": "registry.example.com/train:1.2.3",
                        "state": {"running": {"startedAt": started}},
                        "allocatedResourcesStatus": [{"name": RESOURCE, "resources": held}],
                    }
                ],
            }
        else:
            spec["schedulingGates"] = [{"name": SCHEDULING_GATE}]
        owner = {"apiVersion": API_VERSION, "kind": WORKLOAD_KIND, "name": workload, "controller": True}
        labels = {
            "app": workload,
            WORKLOAD_LABEL: workload,
            REPLICA_LABEL: "0",
            ATTEMPT_LABEL: "0",
            TEMPLATE_HASH_LABEL: template_hash,
        }
        return {
            "metadata": {
                "name": name,
                "namespace": _NAMESPACE,
                "uid": f"uid-{name}",
                "resourceVersion": str(version),
                "creationTimestamp": timestamps.seconds(self.now - timedelta(minutes=60 if runs else 4)),
                "labels": labels,
                "annotations": {},
                "ownerReferences": [{**owner, "uid": f"uid-{workload}"}],
            },
            "spec": spec,
            "status": status,
        }

    def other_pods(self, node: int) -> Iterator[Body]:
        """The pods of others on a node."""
        for number in range(OTHER_PODS):
            name = f"agent-{node:05d}-{number}"
            yield {
                "metadata": {"name": name, "namespace": "system", "uid": f"uid-{name}", "resourceVersion": "7"},
                "spec": {
                    "nodeName": self.node_name(node),
                    "containers": [{"name": "main", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}],
                },
            }

    def fill(self, cache: Cache) -> None:
        """Decodes all objects into a cache; workloads have no status yet."""
        for number in range(self.nodes):
            cache.nodes.apply(self.node(number))
            cache.telemetry.apply(self.telemetry(number))
            for body in self.other_pods(number):
                cache.other_pods.apply(body)
        for number in range(self.running + self.waiting):
            self.submit(cache, number)

    def submit(self, cache: Cache, number: int, **spec: object) -> None:
        """Adds a workload and its pod."""
        cache.workloads.apply(self.workload(number, **spec))
        cache.pods.apply(self.pod(number, self.template_hash(cache, number)))

    def template_hash(self, cache: Cache, number: int) -> str:
        model = cache.workloads.items[f"uid-{self.workload_name(number)}"].model
        if model is None:
            raise TypeError(f"workload {number} is invalid")
        return template_hash(model.spec)


def lease(node: str, observed_at: str, at: datetime) -> Body:
    """Returns the Lease of a node's agent, as it renews it at `at` to confirm the report observed at `observed_at`."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": f"{AGENT_LEASE_PREFIX}{node}",
            "labels": {LEASE_LABEL: AGENT_LEASE},
            "annotations": {OBSERVED_AT_ANNOTATION: observed_at},
        },
        "spec": {"holderIdentity": f"agent-{node}", "leaseDurationSeconds": 90, "renewTime": timestamps.micros(at)},
    }
