"""The schema of a pod template inside a GPUWorkload: open, yet seen well enough to be immutable.

Two quirks of the apiserver shape it (read in `apiserver/pkg/cel/common/valuesunstructured.go`, seen on a server):

- CEL's `==` on an object with unknown fields calls two objects equal when each has as many keys as the other and the
  keys that both have are equal: `{labels}` and `{annotations}` would pass for the same. Declared fields are compared
  properly, and so is a field without a type, as a whole. Hence `metadata.labels` and `metadata.annotations` are
  declared, and `spec` has no type.
- `required` applies to a node without a type, too: so a template without `spec.containers` is refused at once.

What remains invisible here (a spec that isn't an object, an unknown container) becomes a condition of the workload.
"""

from collections.abc import Mapping
from typing import Any, Final

POD_TEMPLATE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "metadata": {
            "description": "Labels and annotations of the pods; the rest is ignored.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "labels": {
                    "type": "object",
                    "maxProperties": 64,
                    "additionalProperties": {"type": "string", "maxLength": 63},
                },
                "annotations": {
                    "type": "object",
                    "maxProperties": 64,
                    "additionalProperties": {"type": "string", "maxLength": 65536},
                },
            },
        },
        "spec": {
            "description": "A pod spec with its containers; the operator adds scheduling gate, node and devices.",
            "x-kubernetes-preserve-unknown-fields": True,
            "required": ["containers"],
        },
    },
}
