"""Saves a decision with its input, and repeats it. Equal decisions give equal bytes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gpufleet_operator.placement.codec import from_bytes, to_bytes
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Decision, NodeState, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.place import place


@dataclass(frozen=True, slots=True)
class SavedDecision:
    """Input and output of one call of `place`."""

    nodes: tuple[NodeState, ...]
    """Ordered by name."""
    request: Request
    mix: Mix
    decision: Decision


def capture(fleet: Fleet, request: Request, mix: Mix = PRIOR) -> SavedDecision:
    """Places the request and returns the decision with its input. Raises as `place` does."""
    nodes = tuple(fleet.nodes[name] for name in sorted(fleet.nodes))
    return SavedDecision(nodes, request, mix, place(fleet, request, mix))


def save(made: SavedDecision) -> bytes:
    """Serializes a decision; equal decisions give equal bytes."""
    return to_bytes(made)


def load(raw: bytes) -> SavedDecision:
    """Parses what `save` wrote. Raises ValueError for anything else."""
    return from_bytes(SavedDecision, raw)


def replay(made: SavedDecision, edit: Callable[[Fleet], None] | None = None) -> SavedDecision:
    """Decides again from the same input, or from the input after `edit`.

    Raises as `place` and `edit` do.
    """
    fleet = Fleet.of(made.nodes)
    if edit is None:
        return replace(made, decision=place(fleet, made.request, made.mix))
    edit(fleet)
    return capture(fleet, made.request, made.mix)
