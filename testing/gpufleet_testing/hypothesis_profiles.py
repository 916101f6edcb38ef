"""How many examples the property tests draw: few by default, many with GPUFLEET_HYPOTHESIS=thorough."""

import os

from hypothesis import settings

THOROUGH = os.environ.get("GPUFLEET_HYPOTHESIS") == "thorough"
_FACTOR = 20 if THOROUGH else 1


def examples(number: int) -> settings:
    """The settings of a property test that draws `number` examples by default."""
    return settings(max_examples=number * _FACTOR, deadline=None)
