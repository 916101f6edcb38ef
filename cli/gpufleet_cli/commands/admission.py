"""Asks the apiserver whether it would admit the pods of workloads: quotas, Pod Security, webhooks, unknown fields."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.errors import ClusterError, ForbiddenError
from gpufleet_cli.input.manifests import ClusterRules, Manifest, as_stored
from gpufleet_operator.pods.build import build, pod_name

_COMMAND: Final = ("create", "--dry-run=server", "--validate=strict", "--output=name", "--filename=-")
_NO_DRY_RUN: Final = "does not support dry run"


@dataclass(frozen=True, slots=True)
class PodAdmission:
    """Rejections by name of the workload, and notes on pods that were not checked."""

    rejections: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def admission(kubectl: Kubectl, workloads: Iterable[Manifest], rules: ClusterRules) -> PodAdmission:
    """Returns which workloads' pods the apiserver rejects. The pod of the first replica is sent, and not stored."""
    rejections: dict[str, str] = {}
    notes: list[str] = []
    for one in workloads:
        try:
            kubectl.run(
                *_COMMAND, f"--namespace={one.traits.namespace}", about="pods", stdin=json.dumps(_pod(one, rules))
            )
        except ClusterError as error:
            text = str(error)
            if _NO_DRY_RUN in text or (isinstance(error, ForbiddenError) and error.by_rbac):
                notes.append(f"{one.name}: not checked whether the apiserver admits its pods: {text}")
            else:
                rejections[one.name] = text
    return PodAdmission(rejections, tuple(notes))


def _pod(manifest: Manifest, rules: ClusterRules) -> dict[str, Any]:
    workload = as_stored(manifest.model)
    name = pod_name(workload.name, 0, "simulated")
    body = build(workload, manifest.model.spec, 0, name, rules.resources, policy=rules.policy)
    del body["metadata"]["ownerReferences"]  # the workload has no UID yet
    return body
