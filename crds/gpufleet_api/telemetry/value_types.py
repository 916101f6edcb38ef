"""Types of the values that telemetry, workloads and demands share: numbers with a unit and a range."""

from typing import Annotated

from pydantic import Field

from gpufleet_api.names import WHOLE_DEVICE_PERCENT

Percent = Annotated[int, Field(ge=0, le=100)]
MiB = Annotated[int, Field(ge=0, le=2**31 - 1)]
Celsius = Annotated[int, Field(ge=-273, le=1000)]
Megahertz = Annotated[int, Field(ge=0, le=100_000)]
Milliwatts = Annotated[int, Field(ge=0, le=2**31 - 1)]
PromisedMiB = Annotated[int, Field(ge=1, le=2**24)]
PromisedPercent = Annotated[int, Field(ge=1, le=WHOLE_DEVICE_PERCENT)]
Items = Annotated[int, Field(ge=0, le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**53)]
