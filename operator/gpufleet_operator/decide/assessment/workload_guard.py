"""Confines an unexpected exception to the workload, pod or node that caused it."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from gpufleet_common.field_errors import internal
from gpufleet_operator.fleet.kept_fleet import ContestedDeviceError
from gpufleet_operator.model.replica import WorkloadReplicas

R = TypeVar("R")
T = TypeVar("T")
_MAX_ERROR_LENGTH = 512


class RepeatPassError(Exception):
    """The pass starts again, because it depends on objects outside of its region."""


class WorkloadGuard:
    """Collects the exceptions of one pass. What caused one is left out of the step, and the others are decided on."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        """Uid of a workload or pod, or name of a node -> the error, as a message for the condition of a workload."""
        self.tracebacks: dict[str, str] = {}
        """As `errors`."""

    def call(self, workload_uid: str, function: Callable[[], T]) -> T | None:
        """Returns the result of the function; None after an exception, unless the whole pass must be repeated."""
        try:
            return function()
        except (RepeatPassError, ContestedDeviceError):
            raise
        except Exception as error:  # noqa: BLE001 - any exception fails this workload only
            self._note(workload_uid, error)
            return None

    def each(self, function: Callable[[T], R], subjects: Iterable[T], identity: Callable[[T], str]) -> Iterator[R]:
        """Yields the result for each subject, without those on which the function raises an exception.

        Args:
            function: Called with each subject, when the one before was consumed.
            subjects: Workloads, pods or nodes.
            identity: Returns the uid of the workload or pod, or the name of the node.
        """
        for subject in subjects:
            try:
                result = function(subject)
            except (RepeatPassError, ContestedDeviceError):
                raise
            except Exception as error:  # noqa: BLE001 - any exception fails this subject only
                self._note(identity(subject), error)
            else:
                yield result

    def workloads(
        self, function: Callable[[WorkloadReplicas], R], assessed: Iterable[WorkloadReplicas]
    ) -> tuple[R, ...]:
        """Returns the result for each workload, without those on which the function raises an exception."""
        return tuple(self.each(function, assessed, _uid))

    def _note(self, identity: str, error: Exception) -> None:
        self.errors[identity] = internal("spec", f"{type(error).__name__}: {error}"[:_MAX_ERROR_LENGTH])
        self.tracebacks[identity] = traceback.format_exc()


def _uid(assessed: WorkloadReplicas) -> str:
    return assessed.workload.uid
