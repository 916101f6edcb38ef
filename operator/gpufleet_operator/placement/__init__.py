from gpufleet_operator.placement.fleet import Fleet
from gpufleet_operator.placement.place import place

__all__ = ["Fleet", "place"]
