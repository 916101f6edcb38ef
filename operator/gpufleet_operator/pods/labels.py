"""Labels and owner of the objects that the operator creates for a workload."""

import hashlib
from collections.abc import Mapping
from typing import Any

from gpufleet_api.names import (
    API_VERSION,
    APP_INSTANCE_LABEL,
    APP_MANAGED_BY_LABEL,
    APP_NAME_LABEL,
    ATTEMPT_LABEL,
    OPERATOR_FIELD_MANAGER,
    POD_INDEX_LABEL,
    REPLICA_LABEL,
    WORKLOAD_KIND,
    WORKLOAD_LABEL,
)
from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.kueue.names import POD_GROUP_LABEL, POD_GROUP_SIZE_ANNOTATION, QUEUE_LABEL
from gpufleet_operator.model.objects import Workload

_MAX_VALUE = 63
_UID_DIGITS = 8

_NOT_PROPAGATED = (
    "argocd.argoproj.io/",
    "kopf.zalando.org/",
    "kubectl.kubernetes.io/last-applied-configuration",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "fluxcd.io/",
)
"""Tracking labels and annotations of GitOps tools and kopf. On a pod, the tool would take it for its own."""


def label_value(name: str) -> str:
    """Returns a workload's name as a label value; a name over 63 characters is truncated and gets a hash."""
    if len(name) <= _MAX_VALUE:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: _MAX_VALUE - 11].rstrip('-.')}-{digest}"


def selector(workload: str) -> dict[str, str]:
    """Returns the labels that select the pods of a workload within its namespace."""
    return {WORKLOAD_LABEL: label_value(workload)}


def of_workload(workload: Workload) -> dict[str, str]:
    value = label_value(workload.name)
    app = {APP_NAME_LABEL: value, APP_INSTANCE_LABEL: value, APP_MANAGED_BY_LABEL: OPERATOR_FIELD_MANAGER}
    return {**app, WORKLOAD_LABEL: value}


def of_pod(workload: Workload, replica: int, template: dict[str, str], *, attempt: int = 0) -> dict[str, str]:
    """Returns the labels of a replica's pod.

    The template's name and instance of the application take precedence; what selects pods does not.
    """
    own = of_workload(workload)
    app = {key: own.pop(key) for key in (APP_NAME_LABEL, APP_INSTANCE_LABEL)}
    own |= {REPLICA_LABEL: str(replica), POD_INDEX_LABEL: str(replica), ATTEMPT_LABEL: str(attempt)}
    return {**app, **template, **own}


def of_queue(
    workload: Workload, spec: WorkloadSpec, template_labels: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns labels and annotations of a pod; empty if neither the workload nor its template names a queue.

    The pods of a gang are one group, which Kueue admits as a whole. The labels of the template take precedence.
    """
    labels = dict(workload.kueue_labels)
    queue = template_labels.get(QUEUE_LABEL, labels.get(QUEUE_LABEL))
    if not queue:
        return {}, {}
    if not spec.placement.gang or POD_GROUP_LABEL in template_labels:
        return labels, {}
    suffix = f"-{workload.uid[:_UID_DIGITS]}"
    group = workload.name[: _MAX_VALUE - len(suffix)].rstrip("-.") + suffix
    return {**labels, POD_GROUP_LABEL: group}, {POD_GROUP_SIZE_ANNOTATION: str(spec.replicas)}


def owner(workload: Workload) -> dict[str, Any]:
    """Returns the owner reference of an object that the workload controls.

    A foreground deletion of the workload waits for the object.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": WORKLOAD_KIND,
        "name": workload.name,
        "uid": workload.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def propagated(entries: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the labels or annotations without those of tools that track objects."""
    return {key: value for key, value in (entries or {}).items() if not key.startswith(_NOT_PROPAGATED)}
