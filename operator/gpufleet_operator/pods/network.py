"""Names of a workload's pods in the cluster's DNS: headless Service, host names and the address of replica 0."""

import hashlib
import re
from typing import Any

from gpufleet_operator.model.objects import Service, Workload
from gpufleet_operator.pods import labels

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""A DNS-1035 label, which the name of a Service must be."""

_MAX_NAME = 57
"""A host name adds a hyphen and up to four digits, and has at most 63 characters."""
_HASH_LENGTH = 6


SERVICE_FIELDS = ("type", "clusterIP", "publishNotReadyAddresses", "selector")
"""Fields of a Service's spec that the operator sets."""


def service_name(workload: str) -> str:
    """Returns the name of the Service: that of the workload if DNS allows it, else a similar one with a hash.

    `llama-3.1` becomes `llama-3-1-` and six digits, so that it never equals the name of another workload.
    """
    if _LABEL.fullmatch(workload) and len(workload) <= _MAX_NAME:
        return workload
    similar = re.sub(r"[^a-z0-9]", "-", workload)
    similar = similar if similar[:1].isalpha() else f"w-{similar}"
    digest = hashlib.sha256(workload.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{similar[: _MAX_NAME - _HASH_LENGTH - 1].rstrip('-')}-{digest}"


def hostname(workload: str, replica: int) -> str:
    return f"{service_name(workload)}-{replica}"


def leader_address(workload: str, namespace: str) -> str:
    """Returns the DNS name of replica 0, without the cluster's domain: the pods' search list completes it."""
    return f"{hostname(workload, 0)}.{service_name(workload)}.{namespace}.svc"


def address_error(workload: str, message: str) -> str:
    """Returns the message while the Service cannot be written."""
    return f"cannot write Service {service_name(workload)}: {message}; pods may have no DNS names"


def service(workload: Workload) -> dict[str, Any]:
    """Returns the headless Service of a workload as JSON.

    It lists pods that are not ready as well, because replicas find each other before they are ready.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(workload.name),
            "namespace": workload.namespace,
            "labels": labels.of_workload(workload),
            "ownerReferences": [labels.owner(workload)],
        },
        "spec": _service_spec(workload),
    }


def differs(stored: Service, workload: Workload) -> bool:
    """Returns True when another client changed what the operator sets of a workload's Service."""
    own = labels.of_workload(workload)
    return dict(stored.spec) != _service_spec(workload) or any(stored.labels.get(k) != v for k, v in own.items())


def _service_spec(workload: Workload) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": labels.selector(workload.name),
    }
