"""Messages of CEL rules and pydantic errors in the grammar of Kubernetes' field.Error."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet_api.markers import Cel
from gpufleet_common.field_errors import forbidden, invalid, required, unsupported


def of_rule(rule: Cel, path: str, value: Any) -> str:
    """Returns the message that the apiserver gives for a violated CEL rule."""
    match rule.reason:
        case "FieldValueRequired":
            return required(path, rule.message)
        case "FieldValueForbidden":
            return forbidden(path, rule.message)
        case _:
            return invalid(path, value, rule.message)


def of_pydantic(problem: Mapping[str, Any]) -> str:
    """Returns the message for one of a ValidationError's errors."""
    path, value, limits = _path(problem["loc"]), problem["input"], problem.get("ctx", {})
    match problem["type"]:
        case "missing":
            return required(path)
        case "enum" | "literal_error":
            return unsupported(path, value, [limits["expected"].replace("'", '"').replace(" or ", ", ")])
        case "greater_than_equal":
            return invalid(path, value, f"must be greater than or equal to {limits['ge']}")
        case "less_than_equal":
            return invalid(path, value, f"must be less than or equal to {limits['le']}")
        case "string_pattern_mismatch":
            return invalid(path, value, f"must match the regex {limits['pattern']}")
        case "too_long":
            return f"{path}: Too many: {len(value)}: must have at most {limits['max_length']} items"
        case "string_too_long":
            return f"{path}: Too long: may not be more than {limits['max_length']} characters"
        case _:
            detail = re.sub(r"^\w+ should ", "must ", problem["msg"])
            return invalid(path, value, re.sub(r"\ba valid (?=[aeiou])", "an ", detail).replace("a valid ", "a "))


def _path(location: Iterable[str | int]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.lstrip(".")
