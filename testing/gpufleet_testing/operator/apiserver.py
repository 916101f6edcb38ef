"""An apiserver in memory: objects with versions, the events of their watches, and faults at a chosen write.

It has what matters of the real one: optimistic writes, JSON Patch with tests, generations that rise with the spec
only, graceful and forced deletion. What Kubernetes really does is tested on the real binaries in e2e; here every
order of steps and every crash is tried.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gpufleet_api.names import ASSIGNMENT_ANNOTATION
from gpufleet_common import timestamps
from gpufleet_operator.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidWriteError,
    NotFoundError,
    PatchConflictError,
)
from gpufleet_testing.hypothesis_profiles import THOROUGH
from gpufleet_testing.json_patch import PatchError, PatchTestError, apply_patch

Json = dict[str, Any]
Key = tuple[str, str]
"""Kind, and name or namespace/name."""


def copy_json(value: object) -> Any:
    """Copies maps and lists, many times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    return [copy_json(item) for item in value] if isinstance(value, list) else value


class Crash(BaseException):
    """The operator's process ends here."""


class WriteFault:
    """What happens to the n-th write from now: the process dies or the answer is lost, before or after it is done."""

    def __init__(self, writes: int, kind: type[BaseException], *, after: bool) -> None:
        self.left, self.kind, self.after = writes, kind, after


def faulty_writes(writes: int, kind: type[BaseException], *, after: bool, step: int = 1) -> range:
    """Returns the indices of the writes at which a fault makes a difference.

    A crash before a write finds what a crash after the previous write finds, so of those only the first one is new.
    """
    return range(1) if kind is Crash and not after and not THOROUGH else range(0, writes, step)


class FakeApiserver:
    """Objects with versions, and the events that watchers would get."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.objects: dict[Key, Json] = {}
        self.log: list[tuple[str, str, Json]] = []
        self.fault: WriteFault | None = None
        self.sent = 0
        """Writes and events of the operator, also rejected ones."""
        self.before_response: Callable[[], None] = lambda: None
        """Called after each of its writes that is stored: watches may be faster than the response."""
        self.reject_creation = False
        """Creations of pods are rejected, as by a quota."""
        self.events: list[str] = []
        self.event_counts: dict[str, int] = {}
        """How often each event was recorded, by its namespace and name."""
        self.event_names: list[tuple[str, str]] = []
        """Workload and name of each event object."""
        self.released: list[tuple[str, str | None, list[str]]] = []
        """Pod uid, node that it was pinned to, nodes with a reservation for it at that moment."""
        self.reject_claims = ""
        """Message with which ResourceClaims are rejected; empty: they are accepted."""
        self.drops_capacity = False
        """As Kubernetes before 1.36 does in the requests of ResourceClaims."""
        self.disruptions_allowed = 1_000_000
        """Evictions until a PodDisruptionBudget allows no more."""
        self.version = 100
        self.max_pods: dict[str, int] = {}
        """By namespace: the limit of its ResourceQuota."""
        self.decoded: dict[tuple[str, str, str], Any] = {}
        """By kind, uid and version, for the operators of this cluster."""

    def of(self, kind: str) -> list[Json]:
        return [self.objects[key] for key in sorted(key for key in self.objects if key[0] == kind)]

    def store(self, kind: str, key: str, body: Json) -> Json:
        """Creates or updates, as the apiserver would. A stored object never changes: its next version replaces it."""
        old = self.objects.get((kind, key))
        self.version += 1
        meta = dict(body["metadata"])
        body = {**body, "metadata": meta}
        meta["resourceVersion"] = str(self.version)
        if old is None:
            meta["uid"] = f"uid-{self.version}"
            meta["generation"] = 1
            meta["creationTimestamp"] = timestamps.seconds(self.now)
        elif old.get("spec") != body.get("spec"):
            meta["generation"] = old["metadata"]["generation"] + 1
        self.objects[kind, key] = body
        self.log.append(("ADDED" if old is None else "MODIFIED", kind, body))
        return body

    def remove(self, kind: str, key: str) -> None:
        body = self.objects.pop((kind, key), None)
        if body is not None:
            self.version += 1
            meta = {**body["metadata"], "resourceVersion": str(self.version)}
            if kind == "pods":  # the apiserver stores it before it deletes a pod, also with grace 0
                meta.setdefault("deletionTimestamp", timestamps.seconds(self.now))
            self.log.append(("DELETED", kind, {**body, "metadata": meta}))

    def change(self, kind: str, key: str, **status: object) -> None:
        """A status write by another client."""
        body = self.objects[kind, key]
        self.store(kind, key, {**body, "status": {**(body.get("status") or {}), **status}})

    # The operator's writes, as `KubeWriter` has them.

    async def create_pod(self, body: Mapping[str, Any]) -> Json:
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        with self._faulty():
            if self.reject_creation:
                raise InvalidWriteError("exceeded quota", 403)
            if ("pods", key) in self.objects:
                raise AlreadyExistsError(key, 409)
            self._check_quota(body["metadata"]["namespace"])
            self.store("pods", key, {**body, "spec": _with_priority(body["spec"]), "status": {"phase": "Pending"}})
            self._count_in_quota(body["metadata"]["namespace"])
        return self.objects["pods", key]

    async def dry_run_pod(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_quota(body["metadata"]["namespace"])
        return body

    async def list_quotas(self, namespace: str) -> list[Json]:
        return [self._quota(namespace)] if namespace in self.max_pods else []

    def quota_controller(self) -> None:
        """Recalculates the quotas, as kube-controller-manager does some time after a pod has ended."""
        for namespace in self.max_pods:
            self._store_used(namespace, self._pods_in(namespace))

    def _count_in_quota(self, namespace: str) -> None:
        """Admission counts a pod before it is stored."""
        if ("quotas", f"{namespace}/quota") in self.objects:
            self._store_used(namespace, int(self._quota(namespace)["status"]["used"]["pods"]) + 1)

    def _quota(self, namespace: str) -> Json:
        """Returns the quota as it is enforced: by its own status, once it has one."""
        stored = self.objects.get(("quotas", f"{namespace}/quota"))
        return stored or self._with_used(namespace, self._pods_in(namespace))

    def _with_used(self, namespace: str, used: int) -> Json:
        status = {"hard": {"pods": str(self.max_pods[namespace])}, "used": {"pods": str(used)}}
        return {"metadata": {"name": "quota", "namespace": namespace}, "spec": {}, "status": status}

    def _store_used(self, namespace: str, used: int) -> None:
        key, body = f"{namespace}/quota", self._with_used(namespace, used)
        stored = self.objects.get(("quotas", key))
        if stored is None or stored["status"] != body["status"]:
            self.store("quotas", key, body if stored is None else {**stored, "status": body["status"]})

    def _check_quota(self, namespace: str) -> None:
        if namespace not in self.max_pods:
            return
        status = self._quota(namespace)["status"]
        used, limit = int(status["used"]["pods"]), int(status["hard"]["pods"])
        if used >= limit:
            words = f"requested: pods=1, used: pods={used}, limited: pods={limit}"
            raise InvalidWriteError(f'pods "x" is forbidden: exceeded quota: quota, {words}', 403)

    def _pods_in(self, namespace: str) -> int:
        pods = (body for body in self.of("pods") if body["metadata"]["namespace"] == namespace)
        return sum((pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"} for pod in pods)

    async def create_service(self, body: Mapping[str, Any]) -> Json:
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        with self._faulty():
            if ("services", key) in self.objects:
                raise AlreadyExistsError(key, 409)
            return self.store("services", key, dict(body))

    async def create_claim(self, body: Mapping[str, Any]) -> Json:
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        with self._faulty():
            if self.reject_claims:
                raise InvalidWriteError(self.reject_claims, 403)
            stored = self.objects.get(("claims", key))
            if stored is None:
                stored = copy_json(body)
                for request in stored["spec"]["devices"]["requests"] if self.drops_capacity else ():
                    request["exactly"].pop("capacity", None)
                return self.store("claims", key, stored)
            owners = [each["metadata"]["ownerReferences"][0]["uid"] for each in (stored, body)]
            if owners[0] != owners[1]:
                raise InvalidWriteError(f"ResourceClaim {key} already exists with another owner", 409)
            return stored

    async def delete_claim(self, namespace: str, name: str, uid: str, resource_version: str) -> None:
        key = f"{namespace}/{name}"
        with self._faulty():
            self._check_uid("claims", key, uid)
            if self.objects["claims", key]["metadata"]["resourceVersion"] != resource_version:
                raise ConflictError("resourceVersion mismatch", 409)
            self.remove("claims", key)

    async def apply_service(self, body: Mapping[str, Any]) -> Json:
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        with self._faulty():
            stored = self._found("services", key)
            meta, own = stored["metadata"], body["metadata"]
            if own["uid"] != meta["uid"]:
                raise NotFoundError("uid mismatch", 422)
            merged = {**meta, "labels": {**(meta.get("labels") or {}), **own["labels"]}}
            spec = {**stored["spec"], **body["spec"]}
            return self.store("services", key, {**stored, "metadata": merged, "spec": spec})

    async def patch_pod(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        before = self.objects.get(("pods", f"{namespace}/{name}"))
        pod = self._patched("pods", f"{namespace}/{name}", patch)
        if before is None or not before["spec"].get("schedulingGates") or pod["spec"].get("schedulingGates"):
            return pod  # not released by this patch
        self.released.append((pod["metadata"]["uid"], target(pod), self.reserved_for(pod["metadata"]["uid"])))
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

    async def apply_telemetry_status(self, node: str, body: Mapping[str, Any]) -> Json:
        with self._faulty():
            stored = self._found("telemetry", node)
            return self._with_conditions("telemetry", stored, body)

    async def patch_node_status(self, name: str, body: Mapping[str, Any]) -> Json:
        with self._faulty():
            return self._with_conditions("nodes", self._found("nodes", name), body)

    def _with_conditions(self, kind: str, stored: Json, body: Mapping[str, Any]) -> Json:
        """Merges conditions by type, as server-side apply and strategic merge patches do."""
        if body["metadata"]["uid"] != stored["metadata"]["uid"]:
            raise NotFoundError("uid mismatch", 422)
        status = stored.get("status") or {}
        merged = {one["type"]: one for one in [*(status.get("conditions") or ()), *body["status"]["conditions"]]}
        kept = [one for one in merged.values() if one.get("$patch") != "delete"]
        return self.store(kind, stored["metadata"]["name"], {**stored, "status": {**status, "conditions": kept}})

    async def evict_pod(self, namespace: str, name: str, uid: str) -> None:
        key = f"{namespace}/{name}"
        with self._faulty():
            self._check_uid("pods", key, uid)
            if self.disruptions_allowed <= 0:
                raise InvalidWriteError("Cannot evict pod as it would violate the pod's disruption budget.", 429)
            self.disruptions_allowed -= 1
            self.delete_gracefully(key)

    async def delete_workload(self, namespace: str, name: str, uid: str) -> None:
        key = f"{namespace}/{name}"
        with self._faulty():
            self._check_uid("workloads", key, uid)
            self.remove("workloads", key)

    async def create_event(self, namespace: str, body: Mapping[str, Any]) -> None:
        key = f"{namespace}/{body['metadata']['name']}"
        with self._faulty():
            if key in self.event_counts:
                raise AlreadyExistsError(key, 409)
            self.event_counts[key] = body["count"]
            self.events.append(f"{body['reason']}: {body['message']}")
            self.event_names.append((body["involvedObject"]["name"], body["metadata"]["name"]))

    async def patch_event(self, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        key = f"{namespace}/{name}"
        with self._faulty():
            if key not in self.event_counts:
                raise NotFoundError(key, 404)
            changed = {op["path"].removeprefix("/"): op["value"] for op in patch}
            self.event_counts[key] = changed.get("count", self.event_counts[key])
            return {"count": self.event_counts[key], **changed}

    def events_about(self, workload: str) -> int:
        """Number of event objects about a workload."""
        return sum(about == workload for about, _ in self.event_names)

    def delete_gracefully(self, key: str) -> None:
        """A bound pod exists until its kubelet has ended it."""
        pod = self.objects["pods", key]
        if pod["spec"].get("nodeName") and pod["status"]["phase"] in ("Pending", "Running"):
            meta = {"deletionTimestamp": timestamps.seconds(self.now), **pod["metadata"]}
            self.store("pods", key, {**pod, "metadata": meta})
        else:
            self.remove("pods", key)

    def _found(self, kind: str, key: str) -> Json:
        if (kind, key) not in self.objects:
            raise NotFoundError(key, 404)
        return self.objects[kind, key]

    def _check_uid(self, kind: str, key: str, uid: str) -> None:
        if self._found(kind, key)["metadata"]["uid"] != uid:
            raise ConflictError("precondition failed", 409)

    def _patched(self, kind: str, key: str, patch: Sequence[Mapping[str, Any]]) -> Json:
        with self._faulty():
            stored = self._found(kind, key)
            try:
                changed = apply_patch(stored, patch)
            except PatchTestError as error:
                raise PatchConflictError(str(error), stored) from error
            except PatchError as error:
                raise InvalidWriteError(str(error), 422) from error
            # Like the apiserver: a patch without a change writes nothing.
            return stored if changed == stored else self.store(kind, key, changed)

    def _faulty(self) -> "_InjectFault":
        return _InjectFault(self)


def _with_priority(spec: Mapping[str, Any]) -> Json:
    """Resolves a PriorityClass as admission does: `priority-100`, or `priority-100-never`, which preempts no pod."""
    _, _, value = str(spec.get("priorityClassName", "")).partition("-")
    number, _, never = value.partition("-")
    if not number:
        return dict(spec)
    return {**spec, "priority": int(number), "preemptionPolicy": "Never" if never else "PreemptLowerPriority"}


class _InjectFault:
    """Wraps one write: counts it and injects the planned fault."""

    def __init__(self, server: FakeApiserver) -> None:
        self.server = server
        server.sent += 1
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
        if error[0] is None:
            self.server.before_response()
        if self.due and fault is not None and error[0] is None:
            self.server.fault = None
            raise fault.kind("after the write")


def target(pod: Json) -> str | None:
    """Returns the node that a released pod is pinned to, or that its annotation names if only its claim decides."""
    pinned = pin(pod["spec"])
    note = pod["metadata"].get("annotations", {}).get(ASSIGNMENT_ANNOTATION)
    return pinned or (str(json.loads(note)["node"]) if note else None)


def pin(spec: Json) -> str | None:
    """Returns the node that the required affinity of a pod spec pins it to."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    return next((f["values"][0] for t in terms for f in t.get("matchFields") or ()), None)
