"""The state of earlier passes: the part of it that belongs to a region, and how a pass puts that back.

The whole state has maps and sets that `merge` changes in place, so that a pass costs what it looks at.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from typing import Any

from gpufleet_operator.model.state_types import PassState, Rejections

BY_WORKLOAD = frozenset(
    {
        "templates",
        "services_restored",
        "status_written",
        "status_queue",
        "queued_creations",
        "restored",
        "generations",
        "preempting",
    }
)
"""Fields whose keys are uids of workloads."""
BY_REPLICA = frozenset({"pending_creates", "transports", "backoffs", "pauses"})
"""Fields whose keys are tuples that begin with the uid of a workload."""
BY_POD = frozenset(
    {
        "unschedulable_since",
        "unanswered_since",
        "first_generation",
        "seen_holding",
        "ended",
        "released_since",
        "kept_since",
        "without_devices",
        "unhealthy_since",
        "counted_pods",
        "allocated_since",
        "device_use",
        "picked",
    }
)
"""Fields whose keys are uids of pods."""
BY_NODE = frozenset({"up_to_date_nodes", "pressure"})
"""Fields whose keys are names of nodes."""
BY_REPORT = frozenset({"reported"})
"""Fields whose keys are those of reports."""
WHOLE = frozenset(
    {
        "write_backoffs",
        "quota_room",
        "quota_tried",
        "held_creations",
        "unsent_releases",
        "full_creations",
        "moves",
        "in_flight",
        "pods_in_flight",
        "responded",
        "by_node",
    }
)
"""Small fields that every pass sees and replaces as a whole."""


_KEYS_OF = {
    **dict.fromkeys(BY_WORKLOAD, "workloads"),
    **dict.fromkeys(BY_POD, "pods"),
    **dict.fromkeys(BY_NODE, "nodes"),
    **dict.fromkeys(BY_REPORT, "reports"),
}
"""Field of the state -> field of its keys."""


@dataclass(frozen=True, slots=True)
class StateKeys:
    """The keys of the state that belong to a region."""

    workloads: AbstractSet[str]
    pods: AbstractSet[str]
    nodes: AbstractSet[str]
    reports: AbstractSet[str]

    def of(self, name: str) -> AbstractSet[str]:
        """Returns the keys of a field."""
        keys: AbstractSet[str] = getattr(self, _KEYS_OF[name])
        return keys


def thawed(state: PassState) -> PassState:
    """Returns the state with maps and sets of its own, which `merge` may change."""

    def copied(name: str, value: Any) -> Any:
        del name
        return dict(value) if isinstance(value, Mapping) else set(value)

    return _mapped(state, copied)


def restricted(state: PassState, keys: StateKeys) -> PassState:
    """Returns the part of the state that belongs to a region."""

    def part(name: str, value: Any) -> Any:
        if name in WHOLE:
            return value
        if not value:  # most of them
            return {} if isinstance(value, Mapping) else frozenset()
        if name in BY_REPLICA:
            return {key: each for key, each in value.items() if key[0] in keys.workloads}
        wanted = keys.of(name)
        if isinstance(value, Mapping):
            return {key: value[key] for key in wanted if key in value}
        return frozenset(key for key in wanted if key in value)

    return _mapped(state, part)


def merge(whole: PassState, keys: StateKeys, after: PassState) -> PassState:
    """Returns the whole state with the region as it is after a pass. The maps and sets of `whole` are changed."""

    def put(name: str, old: Any, new: Any) -> Any:
        if name in WHOLE:
            return new
        if not old:
            old.update(new)
            return old
        if name in BY_REPLICA:
            stale: Collection[Any] = [key for key in old if key[0] in keys.workloads]
        else:
            stale = keys.of(name)
        if isinstance(old, dict):
            for key in stale:
                old.pop(key, None)
        else:
            old.difference_update(stale)
        old.update(new)
        return old

    rejections = {
        f.name: put(f.name, getattr(whole.rejections, f.name), getattr(after.rejections, f.name)) for f in _REJECTIONS
    }
    own = {f.name: put(f.name, getattr(whole, f.name), getattr(after, f.name)) for f in _STATE}
    return PassState(**own, rejections=Rejections(**rejections))


_STATE = tuple(f for f in fields(PassState) if f.name != "rejections")
_REJECTIONS = fields(Rejections)


def _mapped(state: PassState, convert: Any) -> PassState:
    rejections = {f.name: convert(f.name, getattr(state.rejections, f.name)) for f in _REJECTIONS}
    own = {f.name: convert(f.name, getattr(state, f.name)) for f in _STATE}
    return PassState(**own, rejections=Rejections(**rejections))
