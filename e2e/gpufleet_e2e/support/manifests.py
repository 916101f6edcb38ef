"""Manifests of the objects that the tests apply."""

from collections.abc import Mapping
from typing import Any, TypedDict

from gpufleet_e2e.proof import contract

JsonObject = dict[str, Any]

GATE = "gpufleet.dev/assignment"
IMAGE = "localhost/busybox:1"
IDLE = "trap 'exit 0' TERM; sleep 1000000 & wait"
"""Exits on SIGTERM: process 1 of a PID namespace receives only signals that it handles."""

SLEEP = ("sh", "-c", IDLE)
SHARD = ("sh", "-c", f'echo "shard $GPUFLEET_SHARD_START to $GPUFLEET_SHARD_END"; {IDLE}')


def container(name: str = "main", *, command: tuple[str, ...] = SLEEP, **fields: object) -> JsonObject:
    """Builds a container that sleeps."""
    return {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": list(command), **fields}


def pod_spec(*containers: JsonObject, **fields: object) -> JsonObject:
    """Builds a pod's spec, by default with one container that sleeps."""
    usual: JsonObject = {"terminationGracePeriodSeconds": 1, "restartPolicy": "Always"}
    return {**usual, "containers": list(containers) or [container()], **fields}


class WorkloadFields(TypedDict, total=False):
    """Arguments of `gpuworkload` that other builders pass on; those in camel case are fields of the spec."""

    count: int
    replicas: int
    uuids: tuple[str, ...]
    template: JsonObject
    devices: JsonObject
    placement: JsonObject
    runPolicy: JsonObject


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
    **spec: object,
) -> JsonObject:
    """Builds a GPUWorkload.

    Args:
        name: Its name.
        count: Devices of each replica.
        replicas: Number of replicas.
        node: The only acceptable node.
        uuids: The only acceptable devices.
        requirements: Additional requirements.
        labels: Labels of its pods.
        template: Spec of its pods; None means one container that sleeps.
        spec: Additional fields of the spec.
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


def adopting(name: str, *, count: int = 1, replicas: int | None = None, **spec: object) -> JsonObject:
    """Builds a GPUWorkload without a template; with `replicas`, its pods are a gang."""
    gang: JsonObject = {} if replicas is None else {"replicas": replicas, "placement": {"gang": True}}
    return {
        "apiVersion": f"{contract.GROUP}/{contract.VERSION}",
        "kind": "GPUWorkload",
        "metadata": {"name": name},
        "spec": {"devices": {"count": count}, **gang, **spec},
    }


def labeled_template(workload: str, *, restart_policy: str = "Always", **spec: object) -> JsonObject:
    """Builds the pod template of a controller; the label is all that is said about GPUs."""
    labels = {contract.WORKLOAD_LABEL: workload, "app": workload}
    return {"metadata": {"labels": labels}, "spec": pod_spec(restartPolicy=restart_policy, **spec)}


def written_out(spec: JsonObject, workload: str, *, count: int, transport: str) -> JsonObject:
    """Returns a pod's spec with the gate, and with the limit or the claim of its first container.

    The chart's policy adds them to labeled pods; without it, users write them into the pod template.
    """
    claimed: JsonObject = {}
    if transport == "DRA":
        claimed["resourceClaims"] = [{"name": contract.POD_CLAIM, "resourceClaimTemplateName": f"gpufleet-{workload}"}]
        resources: JsonObject = {"claims": [{"name": contract.POD_CLAIM}]}
    else:
        resources = {"limits": {contract.RESOURCE: str(count)}}
    first, *others = spec["containers"]
    containers = [{**first, "resources": resources}, *others]
    return {**spec, "schedulingGates": [{"name": GATE}], "containers": containers, **claimed}


def plain_pod(
    name: str,
    *,
    count: int = 0,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: object,
) -> JsonObject:
    """Builds a pod without a workload; with `count` it requests that many devices, and the device plugin picks them."""
    main = container(resources={"limits": {contract.RESOURCE: str(count)}} if count else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations or {}), "labels": dict(labels or {})},
        "spec": {**pod_spec(main), "restartPolicy": "Never", **spec},
    }


def deployment(name: str, replicas: int, **strategy: object) -> JsonObject:
    """Builds a Deployment of labeled pods; `strategy` are fields of its rolling update."""
    selector = {"matchLabels": {"app": name}}
    rolling = {"type": "RollingUpdate", "rollingUpdate": strategy} if strategy else {"type": "RollingUpdate"}
    spec = {"replicas": replicas, "selector": selector, "strategy": rolling, "template": labeled_template(name)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def stateful_set(name: str, replicas: int) -> JsonObject:
    """Builds a StatefulSet of labeled pods, which creates one after the other."""
    selector = {"matchLabels": {"app": name}}
    spec = {"replicas": replicas, "selector": selector, "serviceName": name, "template": labeled_template(name)}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


def job(name: str, pods_at_once: int, command: str, **spec: object) -> JsonObject:
    """Builds a Job of labeled pods without retries."""
    template = labeled_template(name, restart_policy="Never")
    template["spec"]["containers"][0]["command"] = ["sh", "-c", command]
    full = {"parallelism": pods_at_once, "completions": pods_at_once, "backoffLimit": 0, "template": template, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": full}
