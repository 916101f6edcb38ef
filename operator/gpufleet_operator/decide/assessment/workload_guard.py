"""Confines an exception that no rule foresees to the workload that it is about."""

import traceback
from collections.abc import Callable
from typing import TypeVar

from gpufleet_common.field_errors import internal
from gpufleet_operator.fleet.kept_fleet import ContestedDeviceError

T = TypeVar("T")
_MAX_ERROR_LENGTH = 512


class RepeatPassError(Exception):
    """The pass starts again: it depends on more than it looks at."""


class WorkloadGuard:
    """Collects the exceptions of one pass. Nothing more is decided on their workloads in the pass."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        """Uid of a workload -> the error, as a message for its condition."""
        self.tracebacks: dict[str, str] = {}
        """By uid."""

    def call(self, workload_uid: str, function: Callable[[], T]) -> T | None:
        """Returns what the function returns; None after an exception, unless the whole pass has to be repeated."""
        try:
            return function()
        except (RepeatPassError, ContestedDeviceError):
            raise
        except Exception as error:  # noqa: BLE001 - any exception fails this workload only
            self.errors[workload_uid] = internal("spec", f"{type(error).__name__}: {error}"[:_MAX_ERROR_LENGTH])
            self.tracebacks[workload_uid] = traceback.format_exc()
            return None
