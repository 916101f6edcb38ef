"""A cluster in memory: apiserver, scheduler, kubelets, agents and garbage collector, each taking a step when told.

What matters of the real ones is kept: optimistic writes, JSON Patch with tests, generations that rise with spec alone,
graceful and forced deletion, a kubelet that gives a device to one container at a time and refuses a pod for good. What
Kubernetes really does is tested on the real binaries in e2e; here every order of steps and every crash is tried.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonpatch
import pytest

from gpufleet_api.names import AGENT_FIELD_MANAGER, API_VERSION, RESOURCE, SHARED_RESOURCE, SHARED_SLOTS
from gpufleet_common import timestamps
from gpufleet_common.device_ids import device_of
from gpufleet_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidWriteError,
    LostRaceError,
    NotFoundError,
)
from gpufleet_operator.model.extended_resources import DEFAULTS

MEMORY = 1000
"""MiB of each device."""

Json = dict[str, Any]
Key = tuple[str, str]
"""Kind, and name or namespace/name."""


class Crash(BaseException):
    """The operator's process ends here."""


class Fault:
    """What happens to the n-th write from now: the process dies or the answer is lost, before or after it is done."""

    def __init__(self, writes: int, kind: type[BaseException], *, after: bool) -> None:
        self.left, self.kind, self.after = writes, kind, after


class Apiserver:
    """Objects with versions, and the events that watchers would get."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.objects: dict[Key, Json] = {}
        self.log: list[tuple[str, str, Json]] = []
        self.fault: Fault | None = None
        self.told: list[str] = []
        self.released: list[tuple[str, str | None, list[str]]] = []
        """Pod uid, node that it was pinned to, nodes with a reservation for it at that moment."""
        self._version = 100

    def of(self, kind: str) -> list[Json]:
        return [body for (found, _), body in sorted(self.objects.items()) if found == kind]

    def store(self, kind: str, key: str, body: Json) -> Json:
        """Create or update, as the apiserver would."""
        old = self.objects.get((kind, key))
        self._version += 1
        meta = body["metadata"]
        meta["resourceVersion"] = str(self._version)
        if old is None:
            meta["uid"] = f"uid-{self._version}"
            meta["generation"] = 1
            meta["creationTimestamp"] = timestamps.seconds(self.now)
        elif old.get("spec") != body.get("spec"):
            meta["generation"] = old["metadata"]["generation"] + 1
        self.objects[kind, key] = body
        self.log.append(("ADDED" if old is None else "MODIFIED", kind, copy.deepcopy(body)))
        return copy.deepcopy(body)

    def remove(self, kind: str, key: str) -> None:
        body = self.objects.pop((kind, key), None)
        if body is not None:
            self._version += 1
            gone = copy.deepcopy(body)
            gone["metadata"]["resourceVersion"] = str(self._version)
            self.log.append(("DELETED", kind, gone))

    def change(self, kind: str, key: str, **status: Any) -> None:
        """A status write by somebody else."""
        body = copy.deepcopy(self.objects[kind, key])
        body["status"] = {**(body.get("status") or {}), **status}
        self.store(kind, key, body)

    # The operator's writes, as `Cluster` has them.

    async def create_pod(self, body: Mapping[str, Any]) -> Json:
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        with self._faulty():
            if ("pods", key) in self.objects:
                raise AlreadyExistsError(key, 409)
            self.store("pods", key, {**copy.deepcopy(dict(body)), "status": {"phase": "Pending"}})
        return copy.deepcopy(self.objects["pods", key])

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        pod = self._patched("pods", f"{namespace}/{name}", patch)
        self.released.append((pod["metadata"]["uid"], _pin(pod["spec"]), self.reserved_for(pod["metadata"]["uid"])))
        return pod

    def reserved_for(self, uid: str) -> list[str]:
        """Nodes that have a reservation for the pod."""
        specs = ((t["metadata"]["name"], t.get("spec") or {}) for t in self.of("telemetry"))
        return [name for name, spec in specs if any(a["podUID"] == uid for a in spec.get("assignments") or ())]

    async def patch_telemetry(self, node: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        return self._patched("telemetry", node, patch)

    async def patch_workload_status(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        return self._patched("workloads", f"{namespace}/{name}", patch)

    async def delete_pod(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        key = f"{namespace}/{name}"
        with self._faulty():
            pod = self._found("pods", key)
            meta = pod["metadata"]
            if (meta["uid"], meta["resourceVersion"]) != (uid, resource_version):
                raise ConflictError("precondition failed", 409)
            self.delete_gracefully(key)

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        self.told.append(f"{body['reason']}: {body['message']}")

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> None:
        pass

    def delete_gracefully(self, key: str) -> None:
        """A pod on a node stays until its kubelet has ended it."""
        pod = copy.deepcopy(self.objects["pods", key])
        if pod["spec"].get("nodeName") and pod["status"]["phase"] in ("Pending", "Running"):
            pod["metadata"].setdefault("deletionTimestamp", timestamps.seconds(self.now))
            self.store("pods", key, pod)
        else:
            self.remove("pods", key)

    def _found(self, kind: str, key: str) -> Json:
        if (kind, key) not in self.objects:
            raise NotFoundError(key, 404)
        return self.objects[kind, key]

    def _patched(self, kind: str, key: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        with self._faulty():
            body = copy.deepcopy(self._found(kind, key))
            try:
                changed = jsonpatch.apply_patch(body, [dict(op) for op in patch])
            except jsonpatch.JsonPatchTestFailed as error:
                raise LostRaceError(str(error), copy.deepcopy(body)) from error
            except jsonpatch.JsonPatchException as error:
                raise InvalidWriteError(str(error), 422) from error
            return self.store(kind, key, changed)

    def _faulty(self) -> "_Faulty":
        return _Faulty(self)


class _Faulty:
    """Around one write: counts it, and lets the planned fault happen."""

    def __init__(self, server: Apiserver) -> None:
        self.server = server
        fault = server.fault
        self.due = fault is not None and fault.left <= 0
        if fault is not None:
            fault.left -= 1

    def __enter__(self) -> None:
        fault = self.server.fault
        if self.due and fault is not None and not fault.after:
            self.server.fault = None
            raise fault.kind("before the write")

    def __exit__(self, *error: object) -> None:
        fault = self.server.fault
        if self.due and fault is not None and error[0] is None:
            self.server.fault = None
            raise fault.kind("after the write")


class World(Apiserver):
    """The apiserver with everybody else."""

    def __init__(self, nodes: int = 2, devices: int = 2) -> None:
        super().__init__()
        self.kubelets: dict[str, dict[str, str]] = {}
        """Per node: device or slot of one -> uid of the pod whose container has it."""
        self.promised: dict[str, int] = {}
        """Uid of a pod that was given slots -> MiB that it was promised of each device."""
        self.collisions: list[str] = []
        """Reserved devices that were still somebody else's when their pod was admitted, or too full. Stays empty."""
        self.refuse_binding: set[str] = set()
        self.refuse_admission: set[str] = set()
        self.silent: set[str] = set()
        """Nodes whose agent is away."""
        self.withheld: set[str] = set()
        """Devices that their agent gives to no container, and says so."""
        for number in range(1, nodes + 1):
            self.add_node(f"node-{number}", devices)

    def add_node(self, name: str, devices: int) -> None:
        allocatable = {"cpu": "16", "memory": "64Gi", "pods": "110", RESOURCE: str(devices)}
        allocatable[SHARED_RESOURCE] = str(devices * SHARED_SLOTS)
        self.store("nodes", name, {"metadata": {"name": name}, "spec": {}, "status": {"allocatable": allocatable}})
        self.kubelets[name] = {}
        self.store("telemetry", name, {"metadata": {"name": name}, "spec": {}})
        self.agent(name)

    def register_again(self, name: str) -> None:
        """The machine stays, its Node object is deleted and takes its GPUTelemetry along; both are made anew."""
        count, table = len(self.devices(name)), self.kubelets[name]
        self.remove("telemetry", name)
        self.remove("nodes", name)
        self.add_node(name, count)
        self.kubelets[name] = table
        self.agent(name)

    def devices(self, name: str) -> list[str]:
        count = int(self.objects["nodes", name]["status"]["allocatable"][RESOURCE])
        return [f"GPU-{name}-{index}" for index in range(count)]

    def submit(self, name: str, **spec: Any) -> None:
        template = {"spec": {"containers": [{"name": "main", "image": "busybox"}]}}
        full = {"replicas": 1, "template": template, "devices": {"count": 1}, "placement": {}, **spec}
        body = {"apiVersion": API_VERSION, "metadata": {"name": name, "namespace": "ml"}, "spec": full}
        self.store("workloads", f"ml/{name}", body)

    # One step of each of the others.

    def agent(self, name: str) -> None:
        """Publish what the kubelet of this node says, unless the agent is away."""
        if name in self.silent or ("telemetry", name) not in self.objects:
            return
        body = copy.deepcopy(self.objects["telemetry", name])
        moment, uuids = timestamps.micros(self.now), self.devices(name)
        body["status"] = {
            "assignmentsGeneration": body["metadata"]["generation"],
            "observedAt": moment,
            "sampleTime": moment,
            "agentVersion": "test",
            "summary": {"devices": len(uuids), "healthy": len(uuids), "allocated": len(self.kubelets[name])},
            "devices": [self._device(name, uuid, index) for index, uuid in enumerate(uuids)],
        }
        time = timestamps.seconds(self.now)
        body["metadata"]["managedFields"] = [{"manager": AGENT_FIELD_MANAGER, "subresource": "status", "time": time}]
        self.store("telemetry", name, body)

    def _device(self, node: str, uuid: str, index: int) -> Json:
        allocated = []
        for device_id, holder in self.kubelets[node].items():
            if device_of(device_id) == uuid:
                found: Json = {"namespace": "ml", "pod": f"of-{holder}", "container": "main", "podUID": holder}
                if device_id != uuid:
                    found |= {"shared": True, "memoryMiB": self.promised[holder]}
                allocated.append(found)
        device = {"uuid": uuid, "index": index, "model": "Test", "health": {"state": "Healthy"}}
        measured = {"memoryTotalMiB": MEMORY, "memoryUsedMiB": 10 * index, "utilizationPercent": 0}
        told = {"withheld": "no device node"} if uuid in self.withheld else {}
        return {**device, **measured, **told, "temperatureCelsius": 40, "allocatedTo": allocated}

    def scheduler(self) -> None:
        for pod in self.of("pods"):
            spec, meta = pod["spec"], pod["metadata"]
            if spec.get("schedulingGates") or spec.get("nodeName") or "deletionTimestamp" in meta:
                continue
            key, node = f"ml/{meta['name']}", _pin(spec)
            fits = node is not None and ("nodes", node) in self.objects and node not in self.refuse_binding
            resource, count = _asked(pod)
            if fits and node is not None and self._used(node, resource) + count <= self._offered(node, resource):
                bound = copy.deepcopy(pod)
                bound["spec"]["nodeName"] = node
                self.store("pods", key, bound)
            elif not pod["status"].get("conditions"):
                refusal = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
                self.change("pods", key, conditions=[refusal])

    def _offered(self, node: str, resource: str) -> int:
        return DEFAULTS.offered(resource, len(self.devices(node)))

    def _used(self, node: str, resource: str) -> int:
        on_node = (p for p in self.of("pods") if p["spec"].get("nodeName") == node)
        asked = [_asked(p) for p in on_node if p["status"]["phase"] in ("Pending", "Running")]
        return sum(count for name, count in asked if name == resource)

    def kubelet(self, node: str) -> None:
        """End what is to end, admit what is new. A force-deleted pod's container takes longer than that to die."""
        table = self.kubelets[node]
        mine = {p["metadata"]["uid"]: p for p in self.of("pods") if p["spec"].get("nodeName") == node}
        dying = [u for u, uid in table.items() if uid not in mine]
        for uuid, uid in list(table.items()):
            if uid in mine and mine[uid]["status"]["phase"] in ("Succeeded", "Failed"):
                del table[uuid]
        for uid, pod in mine.items():
            key = f"ml/{pod['metadata']['name']}"
            if "deletionTimestamp" in pod["metadata"]:
                for uuid in [u for u, holder in table.items() if holder == uid]:
                    del table[uuid]
                self.remove("pods", key)
            elif pod["status"]["phase"] == "Pending":
                self._admit(node, key, uid, *_asked(pod))
        for uuid in dying:
            del table[uuid]

    def _admit(self, node: str, key: str, uid: str, resource: str, count: int) -> None:
        table = self.kubelets[node]
        assignments = self._assignments(node)
        mine = next((a for a in assignments if a["podUID"] == uid), None)
        if mine is None:
            reserved = {uuid for a in assignments for uuid in a["devices"]}
            wanted = [u for u in self.devices(node) if not self.holders(node, u) and u not in reserved][:count]
        else:
            wanted = mine["devices"]
        memory = (mine or {}).get("memoryMiB", 0) if resource == SHARED_RESOURCE else None
        taken = [uuid for uuid in wanted if not self._fits(node, uuid, memory)]
        if taken:
            self.collisions.append(f"{key} was to have {taken}, held by {[self.holders(node, u) for u in taken]}")
        refuses = node in self.refuse_admission or not self.withheld.isdisjoint(wanted)
        if taken or len(wanted) != count or refuses:
            self.change("pods", key, phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed")
            return
        given = wanted
        if memory is not None:
            self.promised[uid] = memory
            given = [next(i for n in range(SHARED_SLOTS) if (i := f"{u}::{n}") not in table) for u in wanted]
        table.update(dict.fromkeys(given, uid))
        ids = [{"resourceID": device_id, "health": "Healthy"} for device_id in given]
        container = {
            "name": "main",
            "state": {"running": {"startedAt": timestamps.seconds(self.now)}},
            "allocatedResourcesStatus": [{"name": resource, "resources": ids}],
        }
        self.change("pods", key, phase="Running", containerStatuses=[container])

    def holders(self, node: str, uuid: str) -> dict[str, str]:
        """Device IDs of a device that are given away, and to whom."""
        return {i: uid for i, uid in self.kubelets[node].items() if device_of(i) == uuid}

    def _fits(self, node: str, uuid: str, memory: int | None) -> bool:
        """Whether a device can be given as a whole (None), or so much of it."""
        held = self.holders(node, uuid)
        if memory is None or uuid in held:
            return not held
        return sum(self.promised[uid] for uid in held.values()) + memory <= MEMORY and len(held) < SHARED_SLOTS

    def collector(self) -> None:
        """Pods of workloads that are gone; pods of nodes that are gone."""
        owners = {w["metadata"]["uid"] for w in self.of("workloads")}
        for pod in self.of("pods"):
            key = f"ml/{pod['metadata']['name']}"
            node = pod["spec"].get("nodeName")
            if node and ("nodes", node) not in self.objects:
                self.remove("pods", key)
            elif pod["metadata"]["ownerReferences"][0]["uid"] not in owners:
                self.delete_gracefully(key)

    def finish(self, key: str, phase: str) -> None:
        ended = {"terminated": {"exitCode": 0 if phase == "Succeeded" else 1, "containerID": "c"}}
        statuses = [{**c, "state": ended} for c in self.objects["pods", key]["status"].get("containerStatuses", [])]
        self.change("pods", key, phase=phase, containerStatuses=statuses)

    def _assignments(self, node: str) -> list[Json]:
        return list((self.objects.get(("telemetry", node), {}).get("spec") or {}).get("assignments") or [])

    def ledger(self) -> Iterator[tuple[str, Json]]:
        for node in self.kubelets:
            for assignment in self._assignments(node):
                yield node, assignment

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def _pin(spec: Json) -> str | None:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return next((f["values"][0] for t in terms for f in t.get("matchFields") or ()), None)


def _asked(pod: Json) -> tuple[str, int]:
    ((resource, count),) = pod["spec"]["containers"][0]["resources"]["limits"].items()
    return resource, int(count)


@pytest.fixture(scope="session")
def world() -> type[World]:
    return World


@pytest.fixture(scope="session")
def fault() -> type[Fault]:
    return Fault


@pytest.fixture(scope="session")
def crash() -> type[Crash]:
    return Crash
