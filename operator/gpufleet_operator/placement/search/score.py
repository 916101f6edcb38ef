"""How good a device is right now: terms in 0..1, documented in units, weighted into one total.

| term | 1 means | 0 means |
|---|---|---|
| memory | all of it free | none free |
| utilization | 0 % busy | 100 % busy |
| temperature | 30 degrees Celsius or less | 90 or more |
| power | no draw | at its limit |

Memory and utilization count what is promised or observed, whichever is more, plus the picks that the sample can't
show yet: so a burst of requests doesn't herd onto one device that looks idle.

A value that the hardware doesn't report counts as 0.5 in the total and is None in the terms: a device gains
nothing by keeping silent, and isn't shut out either. All sums are integers in millionths, so equal devices tie.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.fleet.columns import TERMS, Window
from gpufleet_operator.placement.model import DeviceState, ScoreWeights, Terms

COOL_CELSIUS = 30
HOT_CELSIUS = 90
ONE = 1_000_000
NEUTRAL = ONE // 2

MEMORY, UTILIZATION, TEMPERATURE, POWER = range(TERMS)
"""Order of the terms."""


MOST_WEIGHT = 1_000_000
"""Only the ratio of weights matters; with these all sums of millionths stay far within 64 bits."""


@lru_cache(maxsize=64)
def check_weights(weights: ScoreWeights) -> None:
    """Raises InvalidRequestError for a weight that is negative or above 1,000,000, or a sum of 0."""
    for name, value in zip(("memory", "utilization", "temperature", "power"), _values(weights), strict=True):
        if value < 0:
            raise InvalidRequestError(f"weight {name} is {value}, must be 0 or more")
        if value > MOST_WEIGHT:
            raise InvalidRequestError(f"weight {name} is {value}, must be {MOST_WEIGHT} or less")
    if not sum(_values(weights)):
        raise InvalidRequestError("the weights sum to 0: at least one must be above 0")


def millionths(device: DeviceState) -> tuple[int | None, int | None, int | None, int | None]:
    """(memory, utilization, temperature, power) in millionths; None where the hardware doesn't say."""
    memory = utilization = temperature = power = None
    free, compute = device.memory_free_mib, device.compute_in_use_percent
    if free is not None and device.memory_total_mib:
        memory = memory_millionths(free, device.memory_total_mib)
    if compute is not None:
        utilization = utilization_millionths(compute)
    if device.temperature_celsius is not None:
        span = (HOT_CELSIUS - device.temperature_celsius) * ONE // (HOT_CELSIUS - COOL_CELSIUS)
        temperature = min(ONE, max(0, span))
    if device.power_milliwatts is not None and device.power_limit_milliwatts:
        headroom = device.power_limit_milliwatts - device.power_milliwatts
        power = max(0, headroom * ONE // device.power_limit_milliwatts)
    return memory, utilization, temperature, power


def memory_millionths(free_mib: int, total_mib: int) -> int:
    """The memory term of a device that reports its memory."""
    return max(0, free_mib * ONE // total_mib)


def utilization_millionths(compute_percent: int) -> int:
    """The utilization term of a device that reports its utilisation."""
    return max(0, 100 - compute_percent) * (ONE // 100)


def scores(window: Window, weights: ScoreWeights) -> NDArray[np.int64]:
    """(rows, width): the total of every device in millionths; meaningless where there is no device."""
    values, total = _vector(weights)
    return (window.columns.terms[window.at] @ values) // total


def terms(window: Window, cells: Sequence[int], weights: ScoreWeights) -> Terms:
    """The terms of a replica on a window of one row: the mean over its devices, None where one lacks the value.

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
