"""The statuses of kstatus, by which Flux, `kubectl wait` plugins and Config Sync judge an object: its own Go code."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpufleet_e2e.support.programs.go_program import ask


def statuses(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the status of each object: Current, InProgress, Failed, Terminating, NotFound or Unknown."""
    return [one["status"] for one in ask("kstatus", {"items": list(objects)})]
