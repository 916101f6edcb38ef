"""Options that several commands share, declared once."""

from enum import StrEnum


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
