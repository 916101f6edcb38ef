"""The schema of the pod template inside a GPUWorkload: fields that are not declared are kept as they are.

Lists whose items have a key are declared with it, so that server-side apply merges them. What the schema cannot
express, such as an unknown container, becomes a condition of the workload.

A CEL rule must not compare two templates with `==`: on objects with unknown fields it returns true when both have the
same number of keys and the keys that both have are equal (`apiserver/pkg/cel/common/valuesunstructured.go`, seen on a
server).
"""

from collections.abc import Mapping
from typing import Any, Final

from gpufleet_api.markers import Cel

Schema = dict[str, Any]

RESTART_POLICY: Final = Cel(
    "has(self.restartPolicy)",
    "must be one of Never, OnFailure (for workloads that complete) or Always (for services)",
    reason="FieldValueRequired",
    field_path=".restartPolicy",
)


_MAX_TEXT: Final = 131_072
"""What Linux permits for one argument or variable."""
_MAX_ITEMS: Final = 1024


RESOURCE_CLAIMS: Final = Cel(
    "!has(self.resourceClaims) || size(self.resourceClaims) == 0",
    "must be empty: devices of claims cannot be reserved; use spec.devices",
    reason="FieldValueForbidden",
    field_path=".resourceClaims",
)


CONTAINER_CLAIMS: Final = Cel(
    "!has(self.claims) || size(self.claims) == 0",
    RESOURCE_CLAIMS.message,
    reason="FieldValueForbidden",
    field_path=".claims",
)


def _text(description: str) -> Schema:
    # null is permitted, as in a Pod, where it means absence.
    return {"description": description, "type": "string", "nullable": True, "maxLength": _MAX_TEXT}


def _texts(description: str) -> Schema:
    items = {"type": "string", "maxLength": _MAX_TEXT}
    return {"description": description, "type": "array", "nullable": True, "maxItems": _MAX_ITEMS, "items": items}


def _key(description: str, max_length: int) -> Schema:
    return {"description": description, "type": "string", "minLength": 1, "maxLength": max_length}


def _free(description: str) -> Schema:
    return {"description": description, "x-kubernetes-preserve-unknown-fields": True}


def _open(*, required: list[str], **properties: Schema) -> Schema:
    """Returns an object with these fields and any others."""
    return {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "required": required,
        "properties": properties,
    }


def _list_map(description: str, key: str, item: Schema, **fields: Any) -> Schema:
    """Returns a list that server-side apply merges by `key`."""
    lists = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {"description": description, "type": "array", "maxItems": _MAX_ITEMS, **lists, **fields, "items": item}


def _claims(description: str) -> Schema:
    items = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {"description": description, "type": "array", "maxItems": 32, "items": items}


def _container() -> Schema:
    env = _open(
        required=["name"],
        name=_key("Name of the variable.", _MAX_TEXT),
        value=_text(
            "Value of the variable. $(NAME) refers to variables before it, and to GPUFLEET_REPLICA, GPUFLEET_REPLICAS, "
            "GPUFLEET_ATTEMPT and GPUFLEET_LEADER_ADDRESS. Other variables with the prefix GPUFLEET_ are known later: "
            "refer to them in command and args."
        ),
        valueFrom=_free("Source of the value, as in a Pod."),
    )
    mount = _open(
        required=["mountPath"],
        mountPath=_key("Path in the container.", 4096),
        name=_text("Name of the volume."),
    )
    return _open(
        required=["name"],
        name=_key("Name of the container, a DNS label that is unique in the pod.", 63),
        image=_text("Image of the container."),
        command=_texts("Command line without its arguments. Defaults to that of the image."),
        args=_texts("Arguments of the command. Default to those of the image."),
        workingDir=_text("Working directory. Defaults to that of the image."),
        env=_list_map(
            "Environment variables. Names with the prefix GPUFLEET_ are set by gpufleet.", "name", env, nullable=True
        ),
        envFrom=_free("Sources of further environment variables, as in a Pod."),
        ports=_free("Ports of the container, as in a Pod."),
        resources={
            "description": "Requests and limits of CPU, memory and other resources, as in a Pod. The devices are "
            "requested in spec.devices.",
            "type": "object",
            "nullable": True,
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "claims": _claims("Must be empty: devices of claims cannot be reserved."),
            },
            "x-kubernetes-validations": [CONTAINER_CLAIMS.as_schema()],
        },
        volumeMounts=_list_map("Volumes of the pod and where they are mounted.", "mountPath", mount, nullable=True),
    )


def _spec() -> Schema:
    volume = _open(required=["name"], name=_key("Name of the volume.", 63))
    fields = _open(
        required=["containers"],
        restartPolicy={
            "description": "Restart policy for the containers of the pod. Never or OnFailure: for workloads that "
            "complete. Always: for services. Required.",
            "type": "string",
            "enum": ["Always", "OnFailure", "Never"],
        },
        containers=_list_map(
            "Containers of the pod, by name; fields that are not listed here are as in a Pod. The one that gets the "
            "devices is the only one, or that in spec.devices.container; spec.devices.containers names several.",
            "name",
            _container(),
            minItems=1,
        ),
        initContainers=_list_map(
            "Containers that run before the others, by name, as in a Pod. Of these, only sidecars can get "
            "devices (spec.devices.containers).",
            "name",
            _container(),
            nullable=True,
        ),
        resourceClaims=_claims("Must be empty: devices of claims cannot be reserved."),
        volumes=_list_map("Volumes of the pod, by name, as in a Pod.", "name", volume, nullable=True),
    )
    return {
        "description": "Pod spec. The operator adds the scheduling gate, the node and the devices. Fields that are not "
        "listed here are as in a Pod.",
        **fields,
        "x-kubernetes-validations": [RESTART_POLICY.as_schema(), RESOURCE_CLAIMS.as_schema()],
    }


def _map(description: str, max_length: int) -> Schema:
    values = {"type": "string", "maxLength": max_length}
    return {"description": description, "type": "object", "maxProperties": 64, "additionalProperties": values}


POD_TEMPLATE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "metadata": {
            "description": "Labels and annotations of the pods. Other metadata is ignored.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "labels": _map("Labels of the pods.", 63),
                "annotations": _map("Annotations of the pods.", 65536),
            },
        },
        "spec": _spec(),
    },
}
