"""The objects that the tests apply."""

from collections.abc import Mapping
from typing import Any

from gpufleet_e2e.proof import contract

JsonObject = dict[str, Any]

GATE = "gpufleet.dev/assignment"
IMAGE = "localhost/busybox:1"
REST = "trap 'exit 0' TERM; sleep 1000000 & wait"
"""Ends at once when it is told to: process 1 of a namespace hears only signals that it asked for."""

SLEEP = ("sh", "-c", REST)
SHARD = ("sh", "-c", f'echo "shard $GPUFLEET_SHARD_START to $GPUFLEET_SHARD_END"; {REST}')


def container(name: str = "main", *, command: tuple[str, ...] = SLEEP, **fields: Any) -> JsonObject:
    """A container that does nothing for a long time."""
    return {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": list(command), **fields}


def pod_spec(*containers: JsonObject, **fields: Any) -> JsonObject:
    """A pod's spec, by default of one container that rests."""
    return {"terminationGracePeriodSeconds": 1, "containers": list(containers) or [container()], **fields}


def gpuworkload(
    name: str,
    *,
    count: int = 1,
    replicas: int = 1,
    node: str | None = None,
    uuids: tuple[str, ...] = (),
    requirements: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    template: JsonObject | None = None,
    **spec: Any,
) -> JsonObject:
    """A GPUWorkload.

    Args:
        name: Its name.
        count: Devices of each replica.
        replicas: Number of replicas.
        node: The only node that will do.
        uuids: The only devices that will do.
        requirements: Further requirements.
        labels: Of its pods.
        template: The pods' spec; None: one container that sleeps.
        spec: Further fields of the spec.
    """
    needs: JsonObject = dict(requirements or {})
    if node is not None:
        needs["nodeSelector"] = {"kubernetes.io/hostname": node}
    if uuids:
        needs["includeUUIDs"] = list(uuids)
    return {
        "apiVersion": f"{contract.GROUP}/{contract.VERSION}",
        "kind": "GPUWorkload",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "devices": {"count": count},
            **({"requirements": needs} if needs else {}),
            "template": {"metadata": {"labels": dict(labels or {})}, "spec": template or pod_spec()},
            **spec,
        },
    }


def plain_pod(
    name: str, *, count: int = 0, annotations: Mapping[str, str] | None = None, labels: Any = None, **spec: Any
) -> JsonObject:
    """A pod of nobody's; with `count`, it asks for that many devices and lets any device plugin decide."""
    main = container(resources={"limits": {contract.RESOURCE: str(count)}} if count else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations or {}), "labels": dict(labels or {})},
        "spec": {**pod_spec(main), "restartPolicy": "Never", **spec},
    }
