"""Kinds of writes of the operator, by what they do rather than by their path."""

import json
from typing import Any

CREATE_POD = "create a pod"
CREATE_PLACEHOLDER = "create a placeholder pod"
DELETE_PLACEHOLDER = "delete a placeholder pod"
RESERVE = "reserve devices"
PROVE = "prove a reservation"
FREE = "free devices"
RELEASE = "release a pod"
EXPLAIN_POD = "explain a gated pod"
DELETE_POD = "delete a pod"
STATUS = "write the status of a workload"
CREATE_SERVICE = "create a Service"
DELETE_WORKLOAD = "delete a workload"
CREATE_CLAIM = "create a ResourceClaim"
DELETE_CLAIM = "delete a ResourceClaim"
ANNOTATE_NODE = "annotate a Node"
APPLY_DEMAND = "apply a GPUDemand"
DEMAND_STATUS = "write the status of a GPUDemand"
DELETE_DEMAND = "delete a GPUDemand"
EVICT = "evict a pod"
REPORT_PLACEHOLDER = "report a placeholder pod"
RESTORE_SERVICE = "restore a Service"
TELEMETRY_CONDITIONS = "write conditions of a GPUTelemetry"
NODE_CONDITION = "write a condition of a Node"
CREATE_EVENT = "create an event"
COUNT_EVENT = "count an event"
UNCOUNT_POD = "remove the finalizer of a Job's pod"
CREATE_LEASE = "create the Lease"
ACQUIRE_LEASE = "acquire the Lease"
RENEW_LEASE = "renew the Lease"
RELEASE_LEASE = "release the Lease"
ACTIVATE_CHECK = "activate an AdmissionCheck"
ANSWER_CHECK = "answer an AdmissionCheck"

PLACEHOLDER = "-scale-up-"
"""Part of the name of a placeholder pod."""

_KINDS = {
    ("POST", "pods/eviction"): EVICT,
    ("PATCH", "pods/status"): REPORT_PLACEHOLDER,
    ("PATCH", "gpuworkloads/status"): STATUS,
    ("DELETE", "gpuworkloads"): DELETE_WORKLOAD,
    ("POST", "events"): CREATE_EVENT,
    ("PATCH", "events"): COUNT_EVENT,
    ("POST", "services"): CREATE_SERVICE,
    ("PATCH", "services"): RESTORE_SERVICE,
    ("POST", "resourceclaims"): CREATE_CLAIM,
    ("DELETE", "resourceclaims"): DELETE_CLAIM,
    ("PATCH", "gputelemetries/status"): TELEMETRY_CONDITIONS,
    ("PATCH", "nodes/status"): NODE_CONDITION,
    ("PATCH", "nodes"): ANNOTATE_NODE,
    ("PATCH", "gpudemands"): APPLY_DEMAND,
    ("PATCH", "gpudemands/status"): DEMAND_STATUS,
    ("DELETE", "gpudemands"): DELETE_DEMAND,
    ("POST", "leases"): CREATE_LEASE,
    ("PATCH", "admissionchecks/status"): ACTIVATE_CHECK,
    ("PATCH", "workloads/status"): ANSWER_CHECK,
}


class Writes:
    """Tells writes apart.

    It remembers the stored reservations of each node, whose patch has all of them, and the holder of the Lease.
    """

    def __init__(self) -> None:
        self._reserved: dict[str, set[str]] = {}
        self._holder = ""

    def kind(self, method: str, path: str, query: str, body: bytes) -> str | None:
        """Returns the kind of a request; None: it changes nothing.

        Raises:
            LookupError: The operator should not send such a request.
        """
        if method == "GET" or "dryRun=All" in query:
            return None
        parts = path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if parts[0] == "namespaces":
            parts = parts[2:]
        name, target = "/".join(parts[1:2]), "/".join([parts[0], *parts[2:]])
        content: Any = json.loads(body) if body else {}
        if target == "pods":
            return _of_pod(method, name, content)
        if target == "gputelemetries" and method == "PATCH":
            return self._of_node(name, content)
        if target == "leases" and method == "PATCH":
            return self._of_lease(content)
        return _KINDS[method, target]

    def store(self, method: str, path: str, body: bytes) -> None:
        """Notes that a write is stored."""
        node = path.rpartition("/")[2]
        if method == "PATCH" and path.endswith(f"/gputelemetries/{node}"):
            self._reserved[node] = _reserved_for(json.loads(body))
        elif "/leases" in path:
            self._holder = json.loads(body)["spec"]["holderIdentity"]

    def _of_lease(self, patch: dict[str, Any]) -> str:
        holder = patch["spec"]["holderIdentity"]
        if not holder:
            return RELEASE_LEASE
        return RENEW_LEASE if holder == self._holder else ACQUIRE_LEASE

    def _of_node(self, node: str, patch: list[dict[str, Any]]) -> str:
        uids, before = _reserved_for(patch), self._reserved.get(node, set())
        if uids - before:
            return RESERVE
        return FREE if before - uids else PROVE


def _reserved_for(patch: list[dict[str, Any]]) -> set[str]:
    """Returns the uids of the pods with a reservation."""
    assignments = next(one["value"] for one in patch if one["path"] == "/spec/assignments")
    return {one["podUID"] for one in assignments}


def _of_pod(method: str, name: str, content: Any) -> str:
    if method == "POST":
        return CREATE_PLACEHOLDER if PLACEHOLDER in content["metadata"]["name"] else CREATE_POD
    if method == "DELETE":
        return DELETE_PLACEHOLDER if PLACEHOLDER in name else DELETE_POD
    changed = {one["path"].split("/")[2]: one["op"] for one in content if one["op"] != "test"}
    if "finalizers" in changed:
        return "restore the finalizer of a Job's pod" if changed["finalizers"] == "add" else UNCOUNT_POD
    return RELEASE if "schedulingGates" in changed else EXPLAIN_POD
