"""How many examples the property tests draw: few by default, many with GPUFLEET_HYPOTHESIS=thorough.

The few are the same in each run, the many are not. GPUFLEET_HISTORIES=1000 is the number of random histories of each
test that has the marker `histories`.
"""

import os

from hypothesis import settings

THOROUGH = os.environ.get("GPUFLEET_HYPOTHESIS") == "thorough"
_FACTOR = 20 if THOROUGH else 1
_HISTORIES = int(os.environ.get("GPUFLEET_HISTORIES", "0"))
RANDOM = THOROUGH or bool(_HISTORIES)
"""Other examples are drawn in each run. Otherwise a test draws the same ones until it is changed."""


def examples(number: int) -> settings:
    """The settings of a property test that draws `number` examples by default."""
    return settings(max_examples=number * _FACTOR, deadline=None)


def histories(number: int) -> int:
    """How many histories a test runs that runs `number` by default."""
    return _HISTORIES or number * _FACTOR
