"""Places requests for GPUs on a fleet snapshot: pure functions without I/O.

The operator calls `place`, and `contention` for workloads that wait. Library functions without a caller in the product:
`place_all`, `select_best_device`, and `gpufleet_operator.distribution.reshard`.
"""

from gpufleet_operator.placement.aggregate import Aggregates, aggregate
from gpufleet_operator.placement.contention.preempt import PreemptionProposal, propose
from gpufleet_operator.placement.device_ranking import RankedDevice, rank_devices, select_best_device
from gpufleet_operator.placement.fleet.fleet import Fleet
from gpufleet_operator.placement.place import place
from gpufleet_operator.placement.place_many import place_all

__all__ = [
    "Aggregates",
    "Fleet",
    "PreemptionProposal",
    "RankedDevice",
    "aggregate",
    "place",
    "place_all",
    "propose",
    "rank_devices",
    "select_best_device",
]
