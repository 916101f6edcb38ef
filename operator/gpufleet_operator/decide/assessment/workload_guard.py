"""Confines an unexpected exception to the workload that caused it."""

import traceback
from collections.abc import Callable
from typing import TypeVar

from gpufleet_common.field_errors import internal
from gpufleet_operator.fleet.kept_fleet import ContestedDeviceError

T = TypeVar("T")
_MAX_ERROR_LENGTH = 512


class RepeatPassError(Exception):
    """The pass starts again, because it depends on objects outside of its region."""


class WorkloadGuard:
    """Collects the exceptions of one pass. The pass decides nothing more on these workloads."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        """Uid of a workload -> the error, as a message for its condition."""
        self.tracebacks: dict[str, str] = {}
        """By uid."""

    def call(self, workload_uid: str, function: Callable[[], T]) -> T | None:
        """Returns the result of the function; None after an exception, unless the whole pass must be repeated."""
        try:
            return function()
        except (RepeatPassError, ContestedDeviceError):
            raise
        except Exception as error:  # noqa: BLE001 - any exception fails this workload only
            self.errors[workload_uid] = internal("spec", f"{type(error).__name__}: {error}"[:_MAX_ERROR_LENGTH])
            self.tracebacks[workload_uid] = traceback.format_exc()
            return None
