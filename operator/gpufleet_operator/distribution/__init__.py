"""Divides items among replicas by capacity. `reshard` is a library function: the operator never divides again."""

from gpufleet_operator.distribution.apportionment import Shards, apportion, apportion_evenly, unassigned_items
from gpufleet_operator.distribution.reshard import Resharding, reshard

__all__ = ["Resharding", "Shards", "apportion", "apportion_evenly", "reshard", "unassigned_items"]
