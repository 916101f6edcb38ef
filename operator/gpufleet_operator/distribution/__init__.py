from gpufleet_operator.distribution.reshard import Resharding, reshard
from gpufleet_operator.distribution.shares import Shares, shares, unassigned_items, uniform

__all__ = ["Resharding", "Shares", "reshard", "shares", "unassigned_items", "uniform"]
