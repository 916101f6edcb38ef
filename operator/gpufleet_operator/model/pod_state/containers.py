"""State of a pod's container, as reported by the kubelet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Waiting:
    """`state.waiting`: the container does not run, and will be started."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Termination:
    """`state.terminated`, or `lastState.terminated`."""

    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: datetime | None = None
    """By the node's clock."""


@dataclass(frozen=True, slots=True)
class Container:
    """The state of one container.

    `started_at` is its current or last start by the node's clock. `devices` are the ids in `allocatedResourcesStatus`
    per resource; empty on kubelets that do not report it.
    """

    name: str
    running: bool = False
    ran: bool = False
    started_at: datetime | None = None
    devices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    ready: bool = False
    """Its readiness probe succeeds, or it has none and runs."""
    started: bool = False
    """Its startup probe succeeded, or it has none and runs."""
    image: str = ""
    waiting: Waiting | None = None
    terminated: Termination | None = None
    last_terminated: Termination | None = None
    """How the previous run of a restarted container ended."""
    restarts: int = 0
