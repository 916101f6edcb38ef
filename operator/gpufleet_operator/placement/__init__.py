from gpufleet_operator.placement.aggregate import Aggregates, aggregate
from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.order import place_all
from gpufleet_operator.placement.place import place
from gpufleet_operator.placement.preempt import Proposal, propose
from gpufleet_operator.placement.rank import Ranked, rank_devices, select_best_device

__all__ = [
    "Aggregates",
    "Fleet",
    "Proposal",
    "Ranked",
    "aggregate",
    "place",
    "place_all",
    "propose",
    "rank_devices",
    "select_best_device",
]
