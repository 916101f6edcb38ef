"""Computes percentiles, a recommendation and the learned demand from the maxima of earlier runs."""

from collections.abc import Sequence
from fractions import Fraction

from gpufleet_api.demand.gpu_demand import DemandStatus

MARGIN = Fraction(11, 10)
"""Margin in percent, for recommendations and placement."""
MIN_RUNS = 2
"""Minimum number of runs for placement by learned demand."""
FULL_RUNS = 5
"""With fewer runs, only their part of the difference between promise and use is subtracted."""
MAX_PROMISE_MIB = 2**24
_DIGITS = 100
"""Recommendations are rounded to two significant digits."""


def percentile(values: Sequence[int], percent: int) -> int:
    """Returns the percentile of the values by nearest rank.

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def recommended_mib(max_mib: int, device_mib: int | None = None) -> int:
    """Returns the promise to recommend for this maximum: with the margin, rounded up to two significant digits.

    Args:
        max_mib: What the run used at most.
        device_mib: Memory of the largest device that can be used; more can be promised on none. None: unknown.
    """
    wanted, unit = _with_margin(max_mib), 1
    while wanted >= unit * _DIGITS:
        unit *= 10
    most = MAX_PROMISE_MIB if device_mib is None else max(max_mib, device_mib)
    return max(1, min(most, -(-wanted // unit) * unit))


def learned_mib(promised_mib: int, status: DemandStatus | None) -> int | None:
    """Returns the MiB of each device with which a new run is placed; None: too few runs are known.

    It is the 80th percentile of the maxima with the margin. If that is less than promised, each of the first
    `FULL_RUNS` runs adds its part of the difference. If runs used more than promised, it is what they used from
    `MIN_RUNS` on, without the margin: a device on which they have run must not be too small.

    Args:
        promised_mib: What the run is promised.
        status: Of its template.
    """
    if status is None or status.p80_mib is None or status.counted_runs < MIN_RUNS:
        return None
    learned = max(1, _with_margin(status.p80_mib))
    if learned >= promised_mib:
        return max(promised_mib, status.p80_mib)
    known = Fraction(min(status.counted_runs, FULL_RUNS), FULL_RUNS)
    return promised_mib - int((promised_mib - learned) * known)


def _with_margin(mib: int) -> int:
    return -int(-mib * MARGIN // 1)
