"""A cluster in memory: apiserver, scheduler, kubelets, agents and garbage collector, each taking a step when called.

A kubelet gives a device to one container at a time and rejects a pod for good, as the real one does.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from gpufleet_api.names import AGENT_FIELD_MANAGER, API_VERSION, RESOURCE, SHARED_RESOURCE, SHARED_SLOTS
from gpufleet_common import timestamps
from gpufleet_common.device_ids import device_of
from gpufleet_operator.model.extended_resources import DEFAULTS
from gpufleet_testing.operator.apiserver import FakeApiserver, Json, pin

NO_DNS = {"network": {"enableDNSHostnames": False}}
"""No Service, so that a test without one counts the writes to pods only."""

DEVICE_MEMORY_MIB = 1000
"""Memory of each device."""

BROKEN_IMAGE = "broken"
"""A container of this image never becomes ready."""


class FakeCluster(FakeApiserver):
    """The apiserver and the other components."""

    def __init__(self, nodes: int = 2, devices: int = 2) -> None:
        super().__init__()
        self.kubelets: dict[str, dict[str, str]] = {}
        """Per node: device or share slot -> uid of the pod whose container has it."""
        self.promised: dict[str, int] = {}
        """Uid of a pod with share slots -> MiB that it is promised of each device."""
        self.collisions: list[str] = []
        """Reserved devices that another pod held when their pod was admitted, or that were full. Must be empty."""
        self.reject_binding: set[str] = set()
        self.binding_message = "0/2 nodes"
        """kube-scheduler's message for pods that it rejects."""
        self.reject_admission: set[str] = set()
        self.admission_reason = "UnexpectedAdmissionError"
        """Reason of the kubelets for pods that they reject."""
        self.other_plugin: set[str] = set()
        """Nodes where another device plugin gives each container all devices as well; only the agent reports it."""
        self.silent: set[str] = set()
        """Nodes whose agent is down."""
        self.withheld: set[str] = set()
        """Devices that their agent withholds from containers."""
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
        """Deletes and creates the Node and its GPUTelemetry; the machine and its containers run on."""
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
        restart_policy = spec.pop("restart_policy", "Always")
        template = {"spec": {"restartPolicy": restart_policy, "containers": [{"name": "main", "image": "busybox"}]}}
        full = {"replicas": 1, "template": template, "devices": {"count": 1}, "placement": {}, **NO_DNS, **spec}
        body = {"apiVersion": API_VERSION, "metadata": {"name": name, "namespace": "ml"}, "spec": full}
        self.store("workloads", f"ml/{name}", body)

    def edit(self, name: str, **spec: Any) -> None:
        """Changes fields of a workload's spec."""
        body = self.objects["workloads", f"ml/{name}"]
        self.store("workloads", f"ml/{name}", {**body, "spec": {**body["spec"], **spec}})

    def change_template(self, name: str, image: str, **fields: Any) -> None:
        """Changes the image of a workload's container, and other fields of it."""
        template = self.objects["workloads", f"ml/{name}"]["spec"]["template"]["spec"]
        container = {**template["containers"][0], "image": image, **fields}
        self.edit(name, template={"spec": {**template, "containers": [container]}})

    # One step of each of the other components.

    def agent(self, name: str) -> None:
        """Publishes the report of the node's kubelet, unless the agent is down."""
        if name in self.silent or ("telemetry", name) not in self.objects:
            return
        stored = self.objects["telemetry", name]
        body = {**stored, "metadata": dict(stored["metadata"])}
        moment, uuids = timestamps.micros(self.now), self.devices(name)
        conditions = (stored.get("status") or {}).get("conditions")  # the operator's
        body["status"] = {
            **({"conditions": conditions} if conditions else {}),
            "assignmentsGeneration": body["metadata"]["generation"],
            "observedAt": moment,
            "processesObserved": True,
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
            if device_of(device_id) == uuid or node in self.other_plugin:
                found: Json = {"namespace": "ml", "pod": f"of-{holder}", "container": "main", "podUID": holder}
                if holder in self.promised:
                    found |= {"shared": True, "memoryMiB": self.promised[holder]}
                allocated.append(found)
        device = {"uuid": uuid, "index": index, "model": "Test", "health": {"state": "Healthy"}}
        measured = {"memoryTotalMiB": DEVICE_MEMORY_MIB, "memoryUsedMiB": 10 * index, "utilizationPercent": 0}
        withheld = {"withheld": "no device node"} if uuid in self.withheld else {}
        return {**device, **measured, **withheld, "temperatureCelsius": 40, "allocatedTo": allocated}

    def scheduler(self) -> None:
        for pod in self.of("pods"):
            spec, meta = pod["spec"], pod["metadata"]
            if spec.get("schedulingGates") or spec.get("nodeName") or "deletionTimestamp" in meta:
                continue
            if spec.get("schedulerName", "default-scheduler") != "default-scheduler":
                continue  # there is no other scheduler
            key, node = f"ml/{meta['name']}", pin(spec)
            fits = node is not None and ("nodes", node) in self.objects and node not in self.reject_binding
            resource, count = _asked(pod)
            if fits and node is not None and self._used(node, resource) + count <= self._offered(node, resource):
                self.store("pods", key, {**pod, "spec": {**spec, "nodeName": node}})
            elif not pod["status"].get("conditions"):
                rejection = {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": self.binding_message,
                }
                self.change("pods", key, conditions=[rejection])

    def _offered(self, node: str, resource: str) -> int:
        return DEFAULTS.offered(resource, len(self.devices(node)))

    def _used(self, node: str, resource: str) -> int:
        on_node = (p for p in self.of("pods") if p["spec"].get("nodeName") == node)
        asked = [_asked(p) for p in on_node if p["status"]["phase"] in ("Pending", "Running")]
        return sum(count for name, count in asked if name == resource)

    def kubelet(self, node: str) -> None:
        """Ends and admits pods. The container of a force-deleted pod ends one step later."""
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
            self.collisions.append(f"{key} was assigned {taken}, held by {[self.holders(node, u) for u in taken]}")
        rejects = node in self.reject_admission or not self.withheld.isdisjoint(wanted)
        if taken or len(wanted) != count or rejects:
            self.change("pods", key, phase="Failed", reason=self.admission_reason, message="Allocate failed")
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
            "ready": True,
            "started": True,
            "allocatedResourcesStatus": [{"name": resource, "resources": ids}],
        }
        works = self.objects["pods", key]["spec"]["containers"][0]["image"] != BROKEN_IMAGE
        conditions = [{"type": "Ready", "status": str(works)}]
        self.change("pods", key, phase="Running", containerStatuses=[container], conditions=conditions)

    def holders(self, node: str, uuid: str) -> dict[str, str]:
        """Returns the allocated device ids of a device, with the uids of their pods."""
        return {i: uid for i, uid in self.kubelets[node].items() if device_of(i) == uuid}

    def _fits(self, node: str, uuid: str, memory: int | None) -> bool:
        """Whether a device, or this much memory of it, can be allocated (None: the whole device)."""
        held = self.holders(node, uuid)
        if memory is None or uuid in held:
            return not held
        return (
            sum(self.promised[uid] for uid in held.values()) + memory <= DEVICE_MEMORY_MIB and len(held) < SHARED_SLOTS
        )

    def collector(self) -> None:
        """Deletes pods and Services whose workload does not exist, and pods whose node does not."""
        owners = {o["metadata"]["uid"] for kind in ("workloads", "owners") for o in self.of(kind)}
        for service in self.of("services"):
            if service["metadata"]["ownerReferences"][0]["uid"] not in owners:
                self.remove("services", f"ml/{service['metadata']['name']}")
        for pod in self.of("pods"):
            key = f"ml/{pod['metadata']['name']}"
            node = pod["spec"].get("nodeName")
            if node and ("nodes", node) not in self.objects:
                self.remove("pods", key)
            elif any(reference["uid"] not in owners for reference in pod["metadata"]["ownerReferences"]):
                self.delete_gracefully(key)

    def finish(self, key: str, phase: str) -> None:
        code, now = 0 if phase == "Succeeded" else 1, timestamps.seconds(self.now)
        state = {"terminated": {"exitCode": code, "containerID": "c", "finishedAt": now}}
        found = self.objects["pods", key]["status"].get("containerStatuses", [])
        statuses = [{**c, "state": state, "ready": False, "started": False} for c in found]
        not_ready = {"type": "Ready", "status": "False"}
        self.change("pods", key, phase=phase, containerStatuses=statuses, conditions=[not_ready])

    def _assignments(self, node: str) -> list[Json]:
        return list((self.objects.get(("telemetry", node), {}).get("spec") or {}).get("assignments") or [])

    def ledger(self) -> Iterator[tuple[str, Json]]:
        for node in self.kubelets:
            for assignment in self._assignments(node):
                yield node, assignment

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def _asked(pod: Json) -> tuple[str, int]:
    ((resource, count),) = pod["spec"]["containers"][0]["resources"]["limits"].items()
    return resource, int(count)
