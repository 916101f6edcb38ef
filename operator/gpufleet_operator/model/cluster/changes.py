"""Changes of the cluster since the last pass."""

from dataclasses import dataclass, field
from enum import StrEnum


class SubjectKind(StrEnum):
    """What an identity names. `KEY` is the key of a failed write."""

    WORKLOAD = "Workload"
    POD = "Pod"
    NODE = "Node"
    KEY = "Key"


Subject = tuple[SubjectKind, str]
"""Kind, and uid or, of a node, name."""


@dataclass(slots=True)
class Changes:
    """Identities of objects that changed, appeared or disappeared.

    A change is noted for all objects that it concerns: of a pod also its workload and its node, before and after.
    """

    everything: bool = False
    """Nothing is known of what changed."""
    workloads: set[str] = field(default_factory=set)
    """Uids."""
    pods: set[str] = field(default_factory=set)
    """Uids."""
    nodes: set[str] = field(default_factory=set)
    """Names of nodes on which something changed that all pods there may depend on."""
    measured: set[str] = field(default_factory=set)
    """Names of nodes with new measurements: `measurements.measured_again`."""
    keys: set[str] = field(default_factory=set)
    """Keys of slow writes that got their response: see `model.actions`."""
    capacities: set[str] = field(default_factory=set)
    """Names of nodes of which only the free capacity changed."""
