"""The hash of what a pod is built from: pods with another one are of an older template.

It covers the template as it arrives in the pod, and nothing else. What the operator adds (gate, devices, environment,
tolerations) depends on its version and its settings, so an upgrade of gpufleet replaces no pod.
"""

import hashlib
import json

from gpufleet_api.workload import WorkloadSpec
from gpufleet_operator.pods.labels import propagated

_LENGTH = 10
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def template_hash(spec: WorkloadSpec) -> str:
    """Returns the hash of the canonical JSON of the pod spec and the propagated labels and annotations."""
    given = spec.pod_template.get("metadata") or {}
    content = {
        "labels": propagated(given.get("labels")),
        "annotations": propagated(given.get("annotations")),
        "spec": spec.pod_spec,
    }
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:_LENGTH]
