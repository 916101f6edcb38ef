"""Builds the ResourceClaim of a reservation: a request for exactly the reserved devices.

kube-scheduler allocates the claim, so it checks a second time that no device is over-committed.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gpufleet_api.names import DRA_DRIVER, MANAGED_TAINT, POD_CLAIM, REPLICA_LABEL
from gpufleet_api.telemetry.spec import Assignment
from gpufleet_operator.model.claims.resource_claim import ClaimRequest
from gpufleet_operator.model.demands.promise import is_reclaimable, placed_mib
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_state.device_containers import split
from gpufleet_operator.pods import labels

_MIN_CAPACITY_MIB = 1
"""The smallest capacity that the agent's devices allow. It excludes claims of the whole device."""
POD_CLAIM_NAME = "resource.kubernetes.io/pod-claim-name"
"""Annotation by which the ResourceClaim controller finds the claim of an entry of `spec.resourceClaims`."""


def claim_requests(assignment: Assignment) -> tuple[ClaimRequest, ...]:
    """Returns the requests of a reservation.

    One container uses the whole claim, with a request for each device. Of several containers each uses the request of
    its name, because a container can refer to one request of a claim only.
    """
    driver = assignment.resource
    if assignment.containers is None:
        return tuple(
            ClaimRequest(f"gpu-{number}", _is_one_of([uuid], driver), memory_mib=claimed_mib(assignment))
            for number, uuid in enumerate(assignment.devices)
        )
    return tuple(
        ClaimRequest(
            part.container, _is_one_of(sorted(part.devices), driver), len(part.devices), claimed_mib(assignment)
        )
        for part in split(assignment)
    )


def claimed_mib(assignment: Assignment) -> int | None:
    """Returns the MiB of each device that kube-scheduler keeps for a reservation; None: the whole device.

    As in the ledger, this is what the pod is placed by, and nothing where others may get what it does not use: a claim
    cannot be changed later, when the agent has observed it. Other drivers may limit the container to it, so they get
    the promise.
    """
    if assignment.memory_mib is None or assignment.resource != DRA_DRIVER:
        return assignment.memory_mib
    return _MIN_CAPACITY_MIB if is_reclaimable(assignment) else placed_mib(assignment)


def claim_body(workload: Workload, pod: Pod, assignment: Assignment) -> dict[str, Any]:
    """Returns the claim as JSON. It is deleted with the pod."""
    requests = claim_requests(assignment)
    devices: dict[str, Any] = {"requests": [_request(one, assignment.resource) for one in requests]}
    if constraints := list(_constraints(requests, assignment.resource)):
        devices["constraints"] = constraints
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "name": pod.claim_name,
            "namespace": pod.namespace,
            "labels": {**labels.of_workload(workload), REPLICA_LABEL: str(assignment.replica)},
            "annotations": {POD_CLAIM_NAME: POD_CLAIM},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid, "controller": True}
            ],
        },
        "spec": {"devices": devices},
    }


def _request(request: ClaimRequest, driver: str) -> dict[str, Any]:
    exactly: dict[str, Any] = {
        "deviceClassName": driver,
        "allocationMode": "ExactCount",
        "count": request.count,
        "selectors": [{"cel": {"expression": request.expression}}],
    }
    if driver == DRA_DRIVER:
        exactly["tolerations"] = [{"key": MANAGED_TAINT, "operator": "Exists", "effect": "NoSchedule"}]
    if request.memory_mib is not None:
        exactly["capacity"] = {"requests": {"memory": f"{request.memory_mib}Mi"}}
    return {"name": request.name, "exactly": exactly}


def _constraints(requests: Sequence[ClaimRequest], driver: str) -> Iterator[dict[str, Any]]:
    """Yields the constraint that the shares of one request are on different devices."""
    for request in requests:
        if request.count > 1 and request.memory_mib is not None:
            yield {"requests": [request.name], "distinctAttribute": f"{driver}/uuid"}


def _is_one_of(uuids: Sequence[str], driver: str) -> str:
    """Returns the CEL expression. The driver comes first: the attribute of another driver's device is an error."""
    listed = ", ".join(map(json.dumps, uuids))
    test = f"== {listed}" if len(uuids) == 1 else f"in [{listed}]"
    return f'device.driver == "{driver}" && device.attributes["{driver}"].uuid {test}'
