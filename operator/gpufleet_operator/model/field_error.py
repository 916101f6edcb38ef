"""What a user has to change, in words that name the field and the value."""

from dataclasses import dataclass
from typing import Any

_WIDTH = 80


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that the user has to change."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def show(value: Any) -> str:
    """The value as it stands there, cut to a line's width."""
    text = repr(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."
