"""Everything that the engine raises.

PlacementError
|-- InvalidSample      a measurement that can't be true
|-- InvalidRequest     a request that contradicts itself
|-- InvalidFleet       an unknown or doubled device, or no device at all
`-- InvalidCapacity    a capacity or an item count that can't be divided by
"""


class PlacementError(ValueError):
    """Base of the tree; the message names the field and the value."""


class InvalidSample(PlacementError):
    """NaN, infinite, negative, over range, below absolute zero, or used > total."""


class InvalidRequest(PlacementError):
    """Unknown strategy, weights that sum to zero, a count below one."""


class InvalidFleet(PlacementError):
    """Empty fleet, unregistered UUID, duplicate UUID."""


class InvalidCapacity(PlacementError):
    """NaN, infinite, negative or all-zero capacities, or negative items."""
