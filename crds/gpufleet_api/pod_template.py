"""The schema of the pod template inside a GPUWorkload: open, and precise enough for the template to be immutable.

Two behaviors of the apiserver shape it (`apiserver/pkg/cel/common/valuesunstructured.go`, confirmed on a server):

- CEL's `==` on objects with unknown fields returns true when both have the same number of keys and the keys that both
  have are equal: `{labels}` and `{annotations}` would be equal. Declared fields are compared properly, and so is, as a
  whole, a field without a type. Therefore `metadata.labels` and `metadata.annotations` are declared, and `spec` has no
  type.
- `required` also applies to a node without a type, so a template without `spec.containers` is rejected on creation.

What the schema cannot express (a spec that is not an object, an unknown container) becomes a condition of the workload.
"""

from collections.abc import Mapping
from typing import Any, Final

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
            "x-kubernetes-preserve-unknown-fields": True,
            "required": ["containers"],
        },
    },
}
