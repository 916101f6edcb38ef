from gpufleet_operator.distribution.reshard import Resharding, reshard
from gpufleet_operator.distribution.shares import Shares, shares, uniform

__all__ = ["Resharding", "Shares", "reshard", "shares", "uniform"]
