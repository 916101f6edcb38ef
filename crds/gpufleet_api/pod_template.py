"""The schema of the pod template inside a GPUWorkload: fields that are not declared are kept as they are.

What the schema cannot express, such as an unknown container, becomes a condition of the workload.

A CEL rule must not compare two templates with `==`: on objects with unknown fields it returns true when both have the
same number of keys and the keys that both have are equal (`apiserver/pkg/cel/common/valuesunstructured.go`, seen on a
server).
"""

from collections.abc import Mapping
from typing import Any, Final

from gpufleet_api.markers import Cel

RESTART_POLICY: Final = Cel(
    "has(self.restartPolicy)",
    "must be set: Never or OnFailure for work that ends, Always for a service that runs until it is deleted",
    reason="FieldValueRequired",
    field_path=".restartPolicy",
)

RESOURCE_CLAIMS: Final = Cel(
    "!has(self.resourceClaims) || size(self.resourceClaims) == 0",
    "must be empty: devices of claims cannot be reserved; use spec.devices",
    reason="FieldValueForbidden",
    field_path=".resourceClaims",
)

POD_TEMPLATE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "metadata": {
            "description": "Labels and annotations of the pods. Other metadata is ignored.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "labels": {
                    "description": "Labels of the pods.",
                    "type": "object",
                    "maxProperties": 64,
                    "additionalProperties": {"type": "string", "maxLength": 63},
                },
                "annotations": {
                    "description": "Annotations of the pods.",
                    "type": "object",
                    "maxProperties": 64,
                    "additionalProperties": {"type": "string", "maxLength": 65536},
                },
            },
        },
        "spec": {
            "description": "Pod spec. The operator adds the scheduling gate, the node and the devices.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "x-kubernetes-validations": [RESTART_POLICY.as_schema(), RESOURCE_CLAIMS.as_schema()],
            "required": ["containers"],
            "properties": {
                "restartPolicy": {
                    "description": "When a container that ended is started again in its pod. Never or OnFailure: for "
                    "work that ends. Always: for a service that runs until it is deleted. Required.",
                    "type": "string",
                    "enum": ["Always", "OnFailure", "Never"],
                },
                "resourceClaims": {
                    "description": "Must be empty: devices of claims cannot be reserved.",
                    "type": "array",
                    "maxItems": 32,
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        },
    },
}
