"""Options with a fixed set of values."""

from enum import StrEnum


class OutputFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    """A table with all columns, however wide the terminal is."""
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    """One name per line, for other commands."""


class DeviceCapacity(StrEnum):
    """Capacity of a GPU, for `distribute`."""

    FREE_MEMORY = "FreeMemory"
    TOTAL_MEMORY = "TotalMemory"
    UNIFORM = "Uniform"


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
