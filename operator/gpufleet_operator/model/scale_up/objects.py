"""Objects for autoscalers: placeholder pods, and annotations of nodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gpufleet_api.names import GROUP

PLACEHOLDER_LABEL: Final = f"{GROUP}/placeholder"
"""On placeholder pods: uid of the GPUWorkload."""
PLACEHOLDER_SCHEDULER: Final = f"{GROUP}/none"
"""Scheduler of placeholder pods. It does not exist, so that no scheduler ever binds them."""
SCALE_DOWN_DISABLED: Final = "cluster-autoscaler.kubernetes.io/scale-down-disabled"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A placeholder pod."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    workload_uid: str
    reported: bool = False
    """Its condition PodScheduled is False for reason Unschedulable: cluster-autoscaler counts it."""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class CreatePlaceholder:
    namespace: str
    name: str
    body: Mapping[str, Any]
    message: str
    """Of the condition PodScheduled."""


@dataclass(frozen=True, slots=True)
class PlaceholderWrites:
    """Writes that are due."""

    creates: tuple[CreatePlaceholder, ...] = ()
    reports: tuple[tuple[Placeholder, str], ...] = ()
    """Placeholders without the condition, and its message."""
    deletes: tuple[Placeholder, ...] = ()
