"""Exceptions of the engine.

PlacementError
|-- InvalidSampleError      an impossible measurement
|-- InvalidRequestError     a request that contradicts itself
|-- InvalidFleetError       an unknown or duplicate device, or no device
`-- InvalidCapacityError    a capacity or an item count that cannot be divided
"""


class PlacementError(ValueError):
    """Base of the tree; the message names the field and the value."""


class InvalidSampleError(PlacementError):
    """NaN, infinite, negative, over range, below absolute zero, or used > total."""


class InvalidRequestError(PlacementError):
    """Unknown strategy, weights that sum to zero, a count below one."""


class InvalidFleetError(PlacementError):
    """Empty fleet, unregistered UUID, duplicate UUID."""


class InvalidCapacityError(PlacementError):
    """NaN, infinite, negative or all-zero capacities, or negative items."""
