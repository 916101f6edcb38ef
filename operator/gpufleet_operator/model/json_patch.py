"""One operation of a JSON Patch (RFC 6902)."""

from typing import Any

JsonPatchOperation = dict[str, Any]
