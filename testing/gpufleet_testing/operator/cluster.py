"""A cluster in memory: apiserver, scheduler, kubelets, agents and garbage collector, each taking a step when called.

A kubelet gives a device to one container at a time and rejects a pod for good, as the real one does.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

from gpufleet_api.names import (
    AGENT_FIELD_MANAGER,
    API_VERSION,
    CLAIM_PREFIX,
    DRA_DRIVER,
    POD_CLAIM,
    RESOURCE,
    SHARED_RESOURCE,
    SHARED_SLOTS,
    Transport,
)
from gpufleet_common import timestamps
from gpufleet_common.device_ids import device_name, device_of
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

    def __init__(self, nodes: int = 2, devices: int = 2, *, dra: int = 0) -> None:
        """Creates nodes; the last `dra` of them have transport DRA."""
        super().__init__()
        self.transports: dict[str, Transport] = {}
        self._device_counts: dict[str, int] = {}
        self.kubelets: dict[str, dict[str, str]] = {}
        """Per node: device or share slot -> uid of the pod whose container has it."""
        self.promised: dict[str, int] = {}
        """Uid of a pod with share slots -> MiB that it is promised of each device."""
        self.collisions: list[str] = []
        """Reserved devices that another pod held when their pod was admitted, or that were full. Must be empty."""
        self.uses: dict[str, int] = {}
        """Name of a workload -> MiB that each of its pods uses of a shared device, as the agents report it."""
        self.reject_binding: set[str] = set()
        self.binding_message = "0/2 nodes"
        """kube-scheduler's message for pods that it rejects."""
        self.reject_admission: set[str] = set()
        self.admission_reason = "UnexpectedAdmissionError"
        self.admission_message = "Allocate failed"
        """Reason and message of the kubelets for pods that they reject."""
        self.other_plugin: set[str] = set()
        """Nodes where another device plugin gives each container all devices as well; only the agent reports it."""
        self.silent: set[str] = set()
        """Nodes whose agent is down."""
        self.withheld: set[str] = set()
        """Devices that their agent withholds from containers."""
        for number in range(1, nodes + 1):
            transport = Transport.DRA if number > nodes - dra else Transport.DEVICE_PLUGIN
            self.add_node(f"node-{number}", devices, transport)

    def add_node(self, name: str, devices: int, transport: Transport = Transport.DEVICE_PLUGIN) -> None:
        self.transports[name], self._device_counts[name] = transport, devices
        allocatable = {"cpu": "16", "memory": "64Gi", "pods": "110"}
        if transport is Transport.DEVICE_PLUGIN:
            allocatable |= {RESOURCE: str(devices), SHARED_RESOURCE: str(devices * SHARED_SLOTS)}
        self.store("nodes", name, {"metadata": {"name": name}, "spec": {}, "status": {"allocatable": allocatable}})
        self.kubelets[name] = {}
        self.store("telemetry", name, {"metadata": {"name": name}, "spec": {}})
        self.agent(name)

    def register_again(self, name: str) -> None:
        """Deletes and creates the Node and its GPUTelemetry; the machine and its containers run on."""
        count, table = len(self.devices(name)), self.kubelets[name]
        self.remove("telemetry", name)
        self.remove("nodes", name)
        self.add_node(name, count, self.transports[name])
        self.kubelets[name] = table
        self.agent(name)

    def devices(self, name: str) -> list[str]:
        return [f"GPU-{name}-{index}" for index in range(self._device_counts[name])]

    def submit(self, name: str, **spec: object) -> None:
        restart_policy = spec.pop("restart_policy", "Always")
        pod: Json = {"restartPolicy": restart_policy, "containers": [{"name": "main", "image": "busybox"}]}
        if (priority := spec.pop("priority", None)) is not None:
            pod["priorityClassName"] = f"priority-{priority}"
        if (grace := spec.pop("grace_seconds", None)) is not None:
            pod["terminationGracePeriodSeconds"] = grace
        template = {"spec": pod}
        full = {"replicas": 1, "template": template, "devices": {"count": 1}, "placement": {}, **NO_DNS, **spec}
        body = {"apiVersion": API_VERSION, "metadata": {"name": name, "namespace": "ml"}, "spec": full}
        self.store("workloads", f"ml/{name}", body)

    def edit(self, name: str, **spec: object) -> None:
        """Changes fields of a workload's spec."""
        body = self.objects["workloads", f"ml/{name}"]
        self.store("workloads", f"ml/{name}", {**body, "spec": {**body["spec"], **spec}})

    def change_template(self, name: str, image: str, **fields: object) -> None:
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
            "transport": str(self.transports[name]),
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
                    found |= {"shared": True, "memoryMiB": self.promised[holder], **self._memory_of(holder)}
                allocated.append(found)
        device = {"uuid": uuid, "index": index, "model": "Test", "health": {"state": "Healthy"}}
        used = min(DEVICE_MEMORY_MIB, sum(one.get("memoryUsedMiB", 0) for one in allocated)) or 10 * index
        measured = {"memoryTotalMiB": DEVICE_MEMORY_MIB, "memoryUsedMiB": used, "utilizationPercent": 0}
        withheld = {"withheld": "no device node"} if uuid in self.withheld else {}
        return {**device, **measured, **withheld, "temperatureCelsius": 40, "allocatedTo": allocated}

    def _memory_of(self, uid: str) -> Json:
        owners = (p["metadata"]["ownerReferences"][0]["name"] for p in self.of("pods") if p["metadata"]["uid"] == uid)
        used = self.uses.get(next(owners, ""))
        if used is None:
            return {}
        since = timestamps.micros(self.now - timedelta(hours=1))
        return {"memoryUsedMiB": used, "memoryUsedMaxMiB": used, "observedSince": since}

    def scheduler(self) -> None:
        for pod in self.of("pods"):
            spec, meta = pod["spec"], pod["metadata"]
            if spec.get("schedulingGates") or spec.get("nodeName") or "deletionTimestamp" in meta:
                continue
            if spec.get("schedulerName", "default-scheduler") != "default-scheduler":
                continue  # there is no other scheduler
            key, node = f"ml/{meta['name']}", pin(spec) or self._node_of_claim(pod)
            fits = node is not None and ("nodes", node) in self.objects and node not in self.reject_binding
            if fits and node is not None and (self.claim(pod) if claim_of(pod) else self._has_room(node, pod)):
                self.store("pods", key, {**pod, "spec": {**spec, "nodeName": node}})
            elif not pod["status"].get("conditions"):
                rejection = {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": self.binding_message,
                }
                self.change("pods", key, conditions=[rejection])

    def _node_of_claim(self, pod: Json) -> str | None:
        """Returns the node with the devices that the claim of a pod without a pin selects."""
        claim = self.objects.get(("claims", f"ml/{claim_of(pod)}"))
        selected = [uuid for uuid, _ in claimed_devices(claim)] if claim is not None else []
        return next((node for node in self.kubelets if selected and selected[0] in self.devices(node)), None)

    def _has_room(self, node: str, pod: Json) -> bool:
        resource, count = _asked(pod)
        return self._used(node, resource) + count <= self._offered(node, resource)

    def claim(self, pod: Json) -> bool:
        """Allocates the devices that the claim of a pod selects; returns False if they are not free."""
        key = f"ml/{claim_of(pod)}"
        claim = self.objects.get(("claims", key))
        if claim is None or not is_owned(claim, pod):
            return False
        wanted = claimed_devices(claim)
        node = str(pin(pod["spec"]) or self._node_of_claim(pod))
        ended = [p for p in self.of("pods") if p["status"]["phase"] in ("Succeeded", "Failed")]  # give theirs back
        allocated = [
            (used, memory)
            for other in self.of("claims")
            if other is not claim and "allocation" in (other.get("status") or {})
            if not any(is_owned(other, one) for one in ended)
            for used, memory in claimed_devices(other)
        ]
        for uuid, memory in wanted:
            others = [used for device, used in allocated if device == uuid]
            full = sum(others) + memory > DEVICE_MEMORY_MIB
            if full or uuid not in self.devices(node) or self.transports[node] is not Transport.DRA:
                return False
        results = [{"driver": DRA_DRIVER, "pool": node, "device": device_name(uuid)} for uuid, _ in wanted]
        self.change("claims", key, allocation={"devices": {"results": results}})
        return True

    def _offered(self, node: str, resource: str) -> int:
        plugin = self.transports[node] is Transport.DEVICE_PLUGIN
        return DEFAULTS.offered(resource, len(self.devices(node))) if plugin else 0

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
        claimed = self.objects.get(("claims", f"ml/{claim_of(self.objects['pods', key])}"))
        if resource == DRA_DRIVER and claimed is not None:
            wanted, memory = [uuid for uuid, _ in claimed_devices(claimed)], (mine or {}).get("memoryMiB")
            count = len(wanted)
        taken = [uuid for uuid in wanted if not self._fits(node, uuid, memory)]
        if taken:
            self.collisions.append(f"{key} was assigned {taken}, held by {[self.holders(node, u) for u in taken]}")
        rejects = node in self.reject_admission or not self.withheld.isdisjoint(wanted)
        if taken or len(wanted) != count or rejects:
            self.change("pods", key, phase="Failed", reason=self.admission_reason, message=self.admission_message)
            return
        given = wanted
        if memory is not None:
            self.promised[uid] = memory
            given = [next(i for n in range(SHARED_SLOTS) if (i := f"{u}::{n}") not in table) for u in wanted]
        table.update(dict.fromkeys(given, uid))
        ids = [{"resourceID": device_id, "health": "Healthy"} for device_id in given]
        if resource == DRA_DRIVER:
            cdi = f"gpufleet.dev/claim={'0' * 36}"
            ids = [{"resourceID": f"{cdi}-{n}-{uuid}", "health": "Healthy"} for n, uuid in enumerate(wanted)]
            resource = f"claim:{POD_CLAIM}"
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
        pods = {pod["metadata"]["uid"] for pod in self.of("pods")}
        for claim in self.of("claims"):
            if claim["metadata"]["ownerReferences"][0]["uid"] not in pods:
                self.remove("claims", f"ml/{claim['metadata']['name']}")
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
    resources = pod["spec"]["containers"][0]["resources"]
    if "claims" in resources:
        return DRA_DRIVER, 0
    ((resource, count),) = resources["limits"].items()
    return resource, int(count)


def claim_of(pod: Json) -> str | None:
    """Returns the name of the ResourceClaim of a pod; None: it requests a resource."""
    found = pod["spec"].get("resourceClaims")
    if found is None:
        return None
    meta = pod["metadata"]
    return str(found[0].get("resourceClaimName") or f"{CLAIM_PREFIX}{meta['name']}-{meta['uid'][:8]}")


def is_owned(claim: Json, pod: Json) -> bool:
    return bool(claim["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"])


def claimed_devices(claim: Json) -> list[tuple[str, int]]:
    """Returns the devices that a claim selects, with the MiB of each."""
    found = []
    for request in claim["spec"]["devices"]["requests"]:
        exactly = request["exactly"]
        memory = exactly.get("capacity", {}).get("requests", {}).get("memory", f"{DEVICE_MEMORY_MIB}Mi")
        selected = re.findall(r"GPU-[\w-]+", exactly["selectors"][0]["cel"]["expression"])
        found += [(uuid, int(memory.removesuffix("Mi"))) for uuid in selected]
    return found
