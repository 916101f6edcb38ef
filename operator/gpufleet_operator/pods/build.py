"""Builds the pod of a replica from the template: gated, owned, labeled and named, with the device request."""

import hashlib
from collections.abc import Mapping
from typing import Any

from gpufleet_api.names import CLAIM_PREFIX, POD_CLAIM, SCHEDULING_GATE, TEMPLATE_HASH_LABEL, Transport
from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.pod_policy import DEFAULT_POLICY, PodPolicy, tolerations
from gpufleet_operator.model.pod_state.device_containers import of_template
from gpufleet_operator.pods import labels, network
from gpufleet_operator.pods.environment import variables, with_variables
from gpufleet_operator.pods.labels import propagated
from gpufleet_operator.pods.template_hash import template_hash

_MAX_NAME = 63
"""A pod's name is also its host name, a DNS label. Label values have the same limit."""

_SUFFIX_LENGTH = 6
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""As in Kubernetes' generated names: without vowels and 0, 1, 3, so that no words appear."""


def pod_name(workload: str, replica: int, seed: str) -> str:
    """Returns `<workload>-<replica>-<suffix>`, at most 63 characters; a new seed gives a new suffix.

    The suffix makes the name unique over time, so that a report about a pod never applies to its successor.
    """
    number = int.from_bytes(hashlib.sha256(f"{seed}/{workload}/{replica}".encode()).digest()[:8], "big")
    suffix = ""
    for _ in range(_SUFFIX_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        suffix += _ALPHABET[digit]
    tail = f"-{replica}-{suffix}"
    return workload[: _MAX_NAME - len(tail)].rstrip("-.") + tail


def build(
    workload: Workload,
    spec: WorkloadSpec,
    replica: int,
    name: str,
    resources: Resources,
    *,
    attempt: int = 0,
    policy: PodPolicy = DEFAULT_POLICY,
    transport: Transport = Transport.DEVICE_PLUGIN,
) -> dict[str, Any]:
    """Returns the pod as JSON. The template must be valid (see `validate_template`)."""
    pod_spec = dict(spec.pod_spec)
    gates = [g for g in pod_spec.get("schedulingGates") or () if g.get("name") != SCHEDULING_GATE]
    device_users, resource = of_template(spec), resources.name_for(spec.devices)
    if tolerated := tolerations(pod_spec.get("tolerations"), policy):
        pod_spec["tolerations"] = tolerated
    pod_spec["schedulingGates"] = [*gates, {"name": SCHEDULING_GATE}]
    several = len(device_users) > 1

    def with_devices(container: Mapping[str, Any]) -> Mapping[str, Any]:
        if container["name"] not in device_users:
            return container
        if transport is Transport.DRA:
            return _with_claim(container, container["name"] if several else None)
        return _with_resource(container, resource, device_users[container["name"]])

    for kind in ("containers", "initContainers"):
        if pod_spec.get(kind):
            pod_spec[kind] = [with_devices(container) for container in pod_spec[kind]]
    if transport is Transport.DRA:
        # The claim does not exist yet.
        pod_spec["resourceClaims"] = [{"name": POD_CLAIM, "resourceClaimName": f"{CLAIM_PREFIX}{name}"}]
    if spec.network.enable_dns_hostnames:
        pod_spec["hostname"] = network.hostname(workload.name, replica)
        pod_spec["subdomain"] = network.service_name(workload.name)
    given = spec.pod_template.get("metadata") or {}
    of_template_labels = propagated(given.get("labels"))
    queue_labels, queue_annotations = labels.of_queue(workload, spec, of_template_labels)
    own = {**queue_labels, **of_template_labels, TEMPLATE_HASH_LABEL: template_hash(spec)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": workload.namespace,
            "labels": labels.of_pod(workload, replica, own, attempt=attempt),
            "annotations": {**queue_annotations, **propagated(given.get("annotations"))},
            "ownerReferences": [labels.owner(workload)],
        },
        "spec": with_variables(pod_spec, variables(workload, spec, replica, attempt)),
    }


def _with_claim(container: Mapping[str, Any], request: str | None) -> dict[str, Any]:
    """Returns the container with one request of the pod's claim; None: with all of them."""
    used = {"name": POD_CLAIM} if request is None else {"name": POD_CLAIM, "request": request}
    return {**container, "resources": {**(container.get("resources") or {}), "claims": [used]}}


def _with_resource(container: Mapping[str, Any], resource: str, count: int) -> dict[str, Any]:
    resources = dict(container.get("resources") or {})
    resources["limits"] = {**(resources.get("limits") or {}), resource: str(count)}
    return {**container, "resources": resources}
