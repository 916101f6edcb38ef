"""A decision with all that it was made from, to save and to make again: the same bytes, or something has changed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gpufleet_operator.placement.codec import from_bytes, to_bytes
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Decision, NodeState, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.place import place


@dataclass(frozen=True, slots=True)
class SavedDecision:
    """Input and output of one `place`."""

    nodes: tuple[NodeState, ...]
    """In order of name."""
    request: Request
    mix: Mix
    decision: Decision


def capture(fleet: Fleet, request: Request, mix: Mix = PRIOR) -> SavedDecision:
    """Decide, and keep what the decision was made from. Raises as `place` does."""
    nodes = tuple(fleet.nodes[name] for name in sorted(fleet.nodes))
    return SavedDecision(nodes, request, mix, place(fleet, request, mix))


def save(made: SavedDecision) -> bytes:
    """The record as bytes; equal records give equal bytes."""
    return to_bytes(made)


def load(raw: bytes) -> SavedDecision:
    """What `save` wrote; raises ValueError when it is something else."""
    return from_bytes(SavedDecision, raw)


def replay(made: SavedDecision, edit: Callable[[Fleet], None] | None = None) -> SavedDecision:
    """Decide again from the same input, or from it after `edit`: what would have been if.

    Raises as `place` and as `edit` do.
    """
    fleet = Fleet.of(made.nodes)
    if edit is None:
        return replace(made, decision=place(fleet, made.request, made.mix))
    edit(fleet)
    return capture(fleet, made.request, made.mix)
