"""The conditions of GPUWorkloads and GPUTelemetries."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gpufleet_api.base import ApiModel, Timestamp


class ConditionStatus(StrEnum):
    """As in metav1.Condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """Type in CamelCase, such as Ready."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """Reason for the current status, in CamelCase."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Details of the current status, for people."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The metadata.generation that the condition was set for."""
    last_transition_time: Timestamp
    """Time at which the condition's status last changed."""
