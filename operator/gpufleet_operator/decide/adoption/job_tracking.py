"""Builds the patches of the finalizer by which a Job counts its pods."""

from gpufleet_api.names import REPLACED_ANNOTATION
from gpufleet_operator.model.json_patch import JsonPatchOperation
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.owner import JOB_TRACKING_FINALIZER

_FINALIZERS = "/metadata/finalizers"
_REPLACED = f"/metadata/annotations/{REPLACED_ANNOTATION.replace('/', '~1')}"


def uncount(pod: Pod, reason: str) -> tuple[JsonPatchOperation, ...]:
    """Returns the patch that removes the finalizer; empty if the pod does not have it.

    The tests limit it to the pod as it was decided on: gated, or not bound to a node.
    """
    if JOB_TRACKING_FINALIZER not in pod.finalizers:
        return ()
    others = [name for name in pod.finalizers if name != JOB_TRACKING_FINALIZER]
    if pod.has_annotations:
        annotate: JsonPatchOperation = {"op": "add", "path": _REPLACED, "value": reason}
    else:
        annotate = {"op": "add", "path": "/metadata/annotations", "value": {REPLACED_ANNOTATION: reason}}
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.resource_version},
        {"op": "test", "path": _FINALIZERS, "value": list(pod.finalizers)},
        {"op": "replace", "path": _FINALIZERS, "value": others},
        annotate,
    )


def count_again(pod: Pod) -> tuple[JsonPatchOperation, ...]:
    """Returns the patch that undoes `uncount`."""
    return (
        {"op": "test", "path": "/metadata/uid", "value": pod.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": pod.resource_version},
        {"op": "add", "path": _FINALIZERS, "value": [*pod.finalizers, JOB_TRACKING_FINALIZER]},
        {"op": "remove", "path": _REPLACED},
    )
