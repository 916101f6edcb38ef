"""Kubernetes resource quantities as exact numbers."""

import math
import re
from fractions import Fraction

_SUFFIXES = {
    **{s: Fraction(1, 10 ** (3 * i)) for i, s in enumerate(("", "m", "u", "n"))},
    **{s: Fraction(10 ** (3 * i)) for i, s in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{s: Fraction(1024**i) for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)([numkMGTPE]?|[KMGTPE]i)")


def quantity(text: str | float) -> Fraction:
    """`1500m` -> 3/2, `2Gi` -> 2147483648, `1e3` -> 1000, as resource.Quantity reads them.

    Raises:
        ValueError: the text isn't a quantity; the message names it.
    """
    found = _FORM.fullmatch(str(text).strip())
    if not found:
        raise ValueError(f"{text!r} is not a resource quantity")
    number, suffix = found.groups()
    return Fraction(number) * _SUFFIXES[suffix]


def milli(text: str | float) -> int:
    """Thousandths, rounded up: CPU as kube-scheduler counts it."""
    return math.ceil(quantity(text) * 1000)


def whole(text: str | float) -> int:
    """Units (bytes, pods, devices), rounded up."""
    return math.ceil(quantity(text))
