"""Messages about a field, in the grammar of Kubernetes' field.Error: `path: Invalid value: value: detail`."""

import json
from collections.abc import Iterable
from typing import Any

_MAX_WIDTH = 60


def required(path: str, detail: str = "") -> str:
    return f"{path}: Required value{f': {detail}' if detail else ''}"


def invalid(path: str, value: Any, detail: str) -> str:
    return f"{path}: Invalid value: {show(value)}: {detail}"


def unsupported(path: str, value: Any, supported: Iterable[str]) -> str:
    return f"{path}: Unsupported value: {show(value)}: supported values: {', '.join(supported)}"


def not_found(path: str, value: Any, detail: str) -> str:
    return f"{path}: Not found: {show(value)}: {detail}"


def duplicate(path: str, value: Any) -> str:
    return f"{path}: Duplicate value: {show(value)}"


def too_many(path: str, most: int, what: str = "items") -> str:
    return f"{path}: Too many: must have at most {most:,} {what}"


def forbidden(path: str, detail: str) -> str:
    return f"{path}: Forbidden: {detail}"


def internal(path: str, detail: str) -> str:
    return f"{path}: Internal error: {detail}"


def show(value: Any) -> str:
    """Returns the value as JSON, truncated to one line. Never raises."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):  # keys that are not strings
        text = repr(value)
    return text if len(text) <= _MAX_WIDTH else text[: _MAX_WIDTH - 3] + "..."
