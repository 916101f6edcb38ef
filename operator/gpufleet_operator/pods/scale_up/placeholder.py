"""Builds the placeholder pod of a replica: its requests and node rules, with a container that never runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.model.objects import Workload
from gpufleet_operator.model.pod_policy import PodPolicy
from gpufleet_operator.model.scale_up.objects import PLACEHOLDER_LABEL, PLACEHOLDER_SCHEDULER
from gpufleet_operator.pods import build as podbuild
from gpufleet_operator.pods import labels

IMAGE = "registry.k8s.io/pause:3.10"
"""Never pulled: the pod is never bound."""

_MAX_NAME = 63
_DIGEST_LENGTH = 8
_POD_FIELDS = (
    "affinity",
    "hostNetwork",
    "nodeSelector",
    "overhead",
    "priorityClassName",
    "runtimeClassName",
    "securityContext",
    "tolerations",
    "topologySpreadConstraints",
)
"""Fields of a v1.PodSpec that decide on which nodes it fits, or whether it is admitted."""
_CONTAINER_FIELDS = ("name", "resources", "securityContext", "ports", "restartPolicy")


def build(
    workload: Workload, spec: WorkloadSpec, number: int, resources: Resources, policy: PodPolicy
) -> list[dict[str, Any]]:
    """Returns equal pods as JSON. Their names change with the content, so that a changed workload gets others."""
    if not number:
        return []
    whole: Mapping[str, Any] = podbuild.build(workload, spec, 0, "", resources, policy=policy)["spec"]
    pod_spec: dict[str, Any] = {key: whole[key] for key in _POD_FIELDS if key in whole}
    for kind in ("containers", "initContainers"):
        if whole.get(kind):
            pod_spec[kind] = [_container(one) for one in whole[kind]]
    if spec.requirements is not None and spec.requirements.node_selector:
        pod_spec["nodeSelector"] = {**pod_spec.get("nodeSelector", {}), **spec.requirements.node_selector}
    pod_spec |= {
        "schedulerName": PLACEHOLDER_SCHEDULER,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
    }
    digest = hashlib.sha256(json.dumps([workload.uid, pod_spec], sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": _name(workload.name, f"-scale-up-{index}-{digest}"),
                "namespace": workload.namespace,
                "labels": {PLACEHOLDER_LABEL: workload.uid},
                "ownerReferences": [labels.owner(workload)],
            },
            "spec": pod_spec,
        }
        for index in range(number)
    ]


def _name(workload: str, suffix: str) -> str:
    return workload[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix


def _container(whole: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": IMAGE, **{key: whole[key] for key in _CONTAINER_FIELDS if key in whole}}
