"""Builders for the operator's tests: views with everything usual filled in, so that a case states what matters."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from gpufleet_api.names import RESOURCE, SCHEDULING_GATE, SHARED_RESOURCE, SHARED_SLOTS
from gpufleet_api.telemetry import Assignment, GPUTelemetry
from gpufleet_api.workload import GPUWorkload, WorkloadStatus
from gpufleet_common import timestamps
from gpufleet_operator.model.actions import Actions, WriteStatus
from gpufleet_operator.model.objects import Container, Node, Pod, PodPhase, Telemetry, Workload
from gpufleet_operator.model.snapshot import Limits, Memory, Snapshot
from gpufleet_operator.placement.model import PodNeeds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEMPLATE: Mapping[str, Any] = {"spec": {"containers": [{"name": "main", "image": "busybox"}]}}


Holders = Assignment | Pod | Sequence[Assignment | Pod]


def _holder(one: Assignment | Pod) -> dict[str, Any]:
    if isinstance(one, Pod):
        shared = SHARED_RESOURCE in one.needs.extended
        return {"namespace": one.namespace, "pod": one.name, "container": "main", "podUID": one.uid, "shared": shared}
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "container": "main",
        "podUID": one.pod_uid,
        "shared": one.memory_mib is not None,
        "memoryMiB": one.memory_mib,
        "computePercent": one.compute_percent,
    }


class Builders:
    """`b.pod(w)` and the like. Uids are `uid-<name>`."""

    now = NOW

    def workload(
        self,
        name: str = "train",
        *,
        status: WorkloadStatus | None = None,
        template: Mapping[str, Any] = TEMPLATE,
        created: datetime = NOW - timedelta(minutes=1),
        **spec: Any,
    ) -> Workload:
        """A GPUWorkload in namespace ml; `spec` as in the API (`replicas=2, devices={"count": 4}`)."""
        body = {"metadata": {"name": name, "namespace": "ml", "uid": f"uid-{name}", "generation": 1}}
        model = GPUWorkload.model_validate({**body, "spec": {"template": template, **spec}})
        return Workload(
            uid=f"uid-{name}",
            namespace="ml",
            name=name,
            generation=1,
            resource_version="10",
            created=created,
            deleting=False,
            model=model.model_copy(update={"status": status}),
            status=status,
            recorded={p.replica: p for p in status.placements} if status else {},
        )

    def pod(self, workload: Workload | str = "train", replica: int = 0, *, suffix: str = "a", **fields: Any) -> Pod:
        """A gated pod of a workload."""
        owner = workload if isinstance(workload, str) else workload.name
        name = f"{owner}-{replica}-{suffix}"
        usual: dict[str, Any] = {
            "uid": f"uid-{name}",
            "namespace": "ml",
            "name": name,
            "resource_version": "20",
            "created": NOW - timedelta(seconds=30),
            "workload_uid": f"uid-{owner}",
            "replica": replica,
            "gates": (SCHEDULING_GATE,),
            "needs": PodNeeds(cpu_milli=100, memory_bytes=2**20, extended={RESOURCE: 1}),
        }
        return Pod(**{**usual, **fields})

    def released(self, workload: Workload | str = "train", replica: int = 0, to: str = "node-1", **fields: Any) -> Pod:
        """A pod that was let go to a node, where kube-scheduler hasn't bound it yet."""
        return self.pod(workload, replica, **{"gates": (), "pinned": to, **fields})

    def running(
        self,
        workload: Workload | str = "train",
        replica: int = 0,
        node: str = "node-1",
        devices: Sequence[str] = ("GPU-1-0",),
        **fields: Any,
    ) -> Pod:
        """A pod that runs on a node; `devices` are the kubelet's words, none on an older kubelet.

        With needs of slots, it holds one of each device.
        """
        slots = SHARED_RESOURCE in getattr(fields.get("needs"), "extended", {})
        ids = frozenset(f"{uuid}::3" if slots else uuid for uuid in devices)
        held = {SHARED_RESOURCE if slots else RESOURCE: ids} if devices else {}
        main = Container("main", running=True, ran=True, started_at=NOW - timedelta(seconds=20), devices=held)
        usual = {"node": node, "phase": PodPhase.RUNNING, "containers": (main,)}
        return self.released(workload, replica, node, **{**usual, **fields})

    def assignment(self, pod: Pod, *devices: str, workload: str = "train", **fields: Any) -> Assignment:
        """A reservation for a pod."""
        usual: dict[str, Any] = {
            "pod_uid": pod.uid,
            "namespace": pod.namespace,
            "pod": pod.name,
            "container": "main",
            "workload": workload,
            "workload_uid": pod.workload_uid,
            "replica": pod.replica or 0,
            "replicas": 1,
            "resource": RESOURCE,
            "devices": list(devices or ("GPU-1-0",)),
            "decided_at": timestamps.micros(NOW - timedelta(seconds=25)),
        }
        return Assignment(**{**usual, **fields})

    def telemetry(
        self,
        name: str = "node-1",
        *,
        devices: int = 2,
        assignments: Sequence[Assignment] = (),
        held: Mapping[str, Holders] | None = None,
        age: float = 1.0,
        generation: int = 5,
        covered: int | None = None,
        **device: Any,
    ) -> Telemetry:
        """A node with devices GPU-<node number>-<index>; `held` tells whom the agent reports as holders.

        A pod is a holder without a reservation that the agent knew of; one that asks for slots shares the device.
        """
        written = NOW - timedelta(seconds=age)
        number = name.rpartition("-")[2]
        uuids = [f"GPU-{number}-{index}" for index in range(devices)]
        body = {
            "metadata": {"name": name, "uid": f"uid-{name}-telemetry", "generation": generation},
            "spec": {"assignments": [a.model_dump(by_alias=True) for a in assignments]},
            "status": {
                "assignmentsGeneration": generation if covered is None else covered,
                "observedAt": timestamps.micros(written),
                "sampleTime": timestamps.micros(written),
                "agentVersion": "test",
                "summary": {"devices": devices, "healthy": devices, "allocated": 0},
                "devices": [
                    self._device(uuid, index, written, (held or {}).get(uuid), device)
                    for index, uuid in enumerate(uuids)
                ],
            },
        }
        return Telemetry(
            uid=f"uid-{name}-telemetry",
            name=name,
            generation=generation,
            resource_version="30",
            deleting=False,
            model=GPUTelemetry.model_validate(body),
            written_at=written,
        )

    def _device(
        self, uuid: str, index: int, written: datetime, holders: Holders | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        holders = holders if isinstance(holders, Sequence) else [holders] if holders else []
        allocated = [_holder(one) for one in holders]
        return {
            "uuid": uuid,
            "index": index,
            "model": "NVIDIA H100 80GB HBM3",
            "computeCapability": "9.0",
            "sampleTime": timestamps.micros(written),
            "memoryTotalMiB": 81559,
            "memoryUsedMiB": 500,
            "utilizationPercent": 0,
            "temperatureCelsius": 40,
            "powerMilliwatts": 70000,
            "powerLimitMilliwatts": 700000,
            "processCount": 0,
            "health": {"state": "Healthy"},
            "allocatedTo": allocated,
            **given,
        }

    def node(self, name: str = "node-1", *, devices: int = 2, **fields: Any) -> Node:
        """A node with plenty of room."""
        allocatable = {"cpu": 16_000, "memory": 64 * 2**30, "pods": 110, RESOURCE: devices}
        allocatable[SHARED_RESOURCE] = devices * SHARED_SLOTS
        return Node(
            **{"uid": f"uid-{name}", "name": name, "resource_version": "40", "allocatable": allocatable, **fields}
        )

    def snapshot(
        self,
        *objects: Workload | Pod | Telemetry | Node,
        memory: Memory | None = None,
        limits: Limits | None = None,
        now: datetime = NOW,
        **fields: Any,
    ) -> Snapshot:
        """A snapshot of these objects. Nodes that only have telemetry get a Node with plenty of room."""
        telemetry = {o.name: o for o in objects if isinstance(o, Telemetry)}
        nodes = {o.name: o for o in objects if isinstance(o, Node)}
        for name, found in telemetry.items():
            count = len(found.status.devices) if found.status else 0
            nodes.setdefault(name, self.node(name, devices=count))
        return Snapshot(
            now=now,
            salt="salt",
            workloads={o.uid: o for o in objects if isinstance(o, Workload)},
            telemetry=telemetry,
            pods={o.uid: o for o in objects if isinstance(o, Pod)},
            nodes={name: node for name, node in nodes.items() if name not in fields.get("without_nodes", ())},
            memory=memory or Memory(),
            limits=limits or Limits(),
            **{k: v for k, v in fields.items() if k != "without_nodes"},
        )

    def later(self, snapshot: Snapshot, actions: Actions, seconds: float) -> Snapshot:
        """The same cluster some time later, with what was remembered. Telemetry ages along."""
        return replace(snapshot, now=snapshot.now + timedelta(seconds=seconds), memory=actions.memory)

    def states(self, actions: Actions) -> list[str]:
        """The replicas' states in the one status that is written."""
        return [str(p.state) for p in actions.statuses[0].status.placements]

    def explained(self, actions: Actions) -> Any:
        """The explanation in the one status that is written."""
        return actions.statuses[0].status.explanation

    def condition(self, write: WriteStatus | None, kind: str) -> tuple[str, str]:
        """(status, reason) of a condition in a written status."""
        assert write is not None
        return next((str(c.status), c.reason) for c in write.status.conditions if c.type == kind)


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """Thousands of log lines of a simulated life help nobody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture(scope="session")
def b() -> Builders:
    return Builders()
