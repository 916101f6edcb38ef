"""The OpenAPI schema from which Kustomize learns the merge keys of lists: a CRD cannot state them.

A schema in a kustomization replaces the built-in one, so the lists of the usual built-in kinds are in it, too: without
them, a patch of a Deployment's container would remove its image.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from gpufleet_api.names import GROUP, VERSION, WORKLOAD_KIND

Schema = dict[str, Any]

_CONTAINER_LISTS: Final = {
    "env": "name",
    "ports": "containerPort",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
}
_POD_LISTS: Final = {
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumes": "name",
}
_WITH_TEMPLATE: Final = (
    (GROUP, VERSION, WORKLOAD_KIND),
    ("apps", "v1", "DaemonSet"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("apps", "v1", "StatefulSet"),
    ("batch", "v1", "Job"),
)
"""Kinds with a pod template in `spec.template`."""


def render() -> str:
    """Returns the schema as JSON, for `openapi.path` of a kustomization."""
    info = {"title": "Merge keys of lists, for Kustomize", "version": VERSION}
    content = {"swagger": "2.0", "info": info, "paths": {}, "definitions": _definitions()}
    return json.dumps(content, indent=2) + "\n"


def _definitions() -> Mapping[str, Schema]:
    container = _object({name: _merged(key) for name, key in _CONTAINER_LISTS.items()})
    containers = _merged("name", {"$ref": "#/definitions/Container"})
    pod_lists = {name: _merged(key) for name, key in _POD_LISTS.items()}
    pod_spec = _object(
        {"containers": containers, "initContainers": containers, "ephemeralContainers": containers, **pod_lists}
    )
    template = _object({"spec": {"$ref": "#/definitions/PodSpec"}})
    job_spec = _object({"template": template})
    kinds = {kind: _kind(*kind, {"spec": job_spec}) for kind in _WITH_TEMPLATE}
    for kind, fields in {
        ("batch", "v1", "CronJob"): {"spec": _object({"jobTemplate": _object({"spec": job_spec})})},
        ("", "v1", "Pod"): {"spec": {"$ref": "#/definitions/PodSpec"}},
        ("", "v1", "Service"): {"spec": _object({"ports": _merged("port")})},
        ("", "v1", "ServiceAccount"): {"imagePullSecrets": _merged("name"), "secrets": _merged("name")},
    }.items():
        kinds[kind] = _kind(*kind, fields)
    named = {
        ".".join(part for part in (group, version, kind) if part): of for (group, version, kind), of in kinds.items()
    }
    return {"Container": container, "PodSpec": pod_spec, **named}


def _kind(group: str, version: str, kind: str, properties: Schema) -> Schema:
    identity = [{"group": group, "version": version, "kind": kind}]
    return {**_object(properties), "x-kubernetes-group-version-kind": identity}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _merged(key: str, items: Schema | None = None) -> Schema:
    """Returns a list that is merged by `key`."""
    merge = {"x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge"}
    return {"type": "array", **merge, "items": items or {"type": "object"}}
