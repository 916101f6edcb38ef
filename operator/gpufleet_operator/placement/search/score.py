"""Weighted scores of devices and the terms of a pick.

All sums are integers in millionths, so they are exact and equal devices tie.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.fleet.columns import RowWindow
from gpufleet_operator.placement.fleet.terms import MEMORY, ONE, POWER, TEMPERATURE, UTILIZATION
from gpufleet_operator.placement.model import ScoreWeights, Terms

MAX_WEIGHT = 1_000_000
"""Only the ratio of weights matters; up to this weight, sums of millionths fit into 64 bits."""


@lru_cache(maxsize=64)
def check_weights(weights: ScoreWeights) -> None:
    """Raises InvalidRequestError for a weight that is negative or above 1,000,000, or a sum of 0."""
    for name, value in zip(("memory", "utilization", "temperature", "power"), _values(weights), strict=True):
        if value < 0:
            raise InvalidRequestError(f"weight {name} is {value}, must be 0 or more")
        if value > MAX_WEIGHT:
            raise InvalidRequestError(f"weight {name} is {value}, must be {MAX_WEIGHT} or less")
    if not sum(_values(weights)):
        raise InvalidRequestError("the weights sum to 0: at least one must be above 0")


def scores(window: RowWindow, weights: ScoreWeights) -> NDArray[np.int64]:
    """Returns (rows, width): the score of every device in millionths; meaningless without a device."""
    values, total = _vector(weights)
    return (window.columns.terms[window.at] @ values) // total


def terms(window: RowWindow, cells: Sequence[int], weights: ScoreWeights) -> Terms:
    """Returns the mean terms of a replica on a single row; None for a term that a device does not report.

    A replica without devices has no terms and a total of 1.
    """
    if not cells:
        return Terms(1.0)
    columns, at = window.columns, window.at
    values, count = _values(weights), len(cells)
    memory_weight, utilization_weight, temperature_weight, power_weight = values
    weight, parts, reported = sum(values), columns.terms[at][0].tolist(), columns.known[at][0].tolist()
    total, known, memory, utilization, temperature, power = 0, ~0, 0, 0, 0, 0
    for cell in cells:
        m, u, t, p = parts[cell]
        known &= reported[cell]
        memory, utilization, temperature, power = memory + m, utilization + u, temperature + t, power + p
        weighted = m * memory_weight + u * utilization_weight + t * temperature_weight + p * power_weight
        total += weighted // weight
    return Terms(
        round(total / count) / ONE,
        round(memory / count) / ONE if known >> MEMORY & 1 else None,
        round(utilization / count) / ONE if known >> UTILIZATION & 1 else None,
        round(temperature / count) / ONE if known >> TEMPERATURE & 1 else None,
        round(power / count) / ONE if known >> POWER & 1 else None,
    )


@lru_cache(maxsize=64)
def _vector(weights: ScoreWeights) -> tuple[NDArray[np.int64], np.int64]:
    values = _values(weights)
    return np.array(values, np.int64), np.int64(sum(values))


def _values(weights: ScoreWeights) -> tuple[int, int, int, int]:
    return weights.memory, weights.utilization, weights.temperature, weights.power
