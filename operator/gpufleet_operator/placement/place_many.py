"""Places several requests in order of priority, debiting each pick before the next request."""

from collections.abc import Sequence

from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.model import Decision, Request
from gpufleet_operator.placement.packing.mix import PRIOR, Mix
from gpufleet_operator.placement.place import place


def place_all(fleet: Fleet, requests: Sequence[Request], mix: Mix = PRIOR) -> tuple[Decision, ...]:
    """Returns the decisions in the order of the requests. Higher priorities are placed first, then in the given order.

    The fleet is not changed. Raises as `place` does.
    """
    plan = fleet.copy()
    decisions: dict[int, Decision] = {}
    for position in sorted(range(len(requests)), key=lambda at: -requests[at].priority):
        request = requests[position]
        decisions[position] = place(plan, request, mix)
        hold(plan, request, decisions[position])
    return tuple(decisions[position] for position in range(len(requests)))


def hold(fleet: Fleet, request: Request, decision: Decision) -> None:
    """Debits every pick of a decision. Raises as `Fleet.hold` does."""
    for pick in decision.picks:
        fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
