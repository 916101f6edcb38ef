"""Options with a fixed set of values."""

from enum import StrEnum


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


class DeviceCapacity(StrEnum):
    """Capacity of a GPU, for `distribute`."""

    FREE_MEMORY = "FreeMemory"
    TOTAL_MEMORY = "TotalMemory"
    UNIFORM = "Uniform"
