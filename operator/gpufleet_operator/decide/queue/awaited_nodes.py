"""Holds back picks of Spread on nodes whose reservations are being written.

Such a node gets no devices until the response. Other strategies take another node; Spread would put two replicas on one
node although another node is free.
"""

from collections.abc import Collection
from dataclasses import replace

from gpufleet_operator.placement.model import Decision, Diagnosis, Request


def without_awaited(decision: Decision, requested: Request, nodes: Collection[str], considered: int) -> Decision:
    """Returns the decision without the picks on awaited nodes; for a gang, without all picks.

    Args:
        decision: The decision.
        requested: Its request.
        nodes: The nodes that are waited for.
        considered: The number of devices of the fleet.
    """
    awaited = [pick for pick in decision.picks if pick.node in nodes]
    if not awaited:
        return decision
    names = ", ".join(sorted({pick.node for pick in awaited}))
    devices = sum(len(pick.devices) for pick in awaited)
    waiting = Diagnosis(f"waiting for the response to the last reservations on {names}", considered, devices)
    kept = () if requested.gang else tuple(pick for pick in decision.picks if pick.node not in nodes)
    placed = {pick.replica for pick in kept}
    unplaced = tuple(replica for replica in requested.replicas if replica not in placed)
    return replace(decision, picks=kept, unplaced=unplaced, diagnosis=decision.diagnosis or waiting)
