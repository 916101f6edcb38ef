"""Kubernetes resource quantities as numbers.

`quantity` judges: what isn't a quantity is an error. `milli` and `whole` count what the apiserver has taken, for
which nothing is an error: they never raise, and never exceed what sums and the engine's arrays can hold.
"""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

MOST: Final = 2**60
"""Stands for "more than any node has". A few such amounts still add up to less than 2^63."""

_SUFFIXES = {
    **{s: Fraction(1, 10 ** (3 * i)) for i, s in enumerate(("", "m", "u", "n"))},
    **{s: Fraction(10 ** (3 * i)) for i, s in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{s: Fraction(1024**i) for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}

_FORM = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?([numkMGTPE]?|[KMGTPE]i)")
_LENGTH = 100
_EXPONENT = 30
"""Powers of ten beyond this are far beyond `MOST` and far below a nano, whatever the suffix."""


def quantity(text: Any) -> Fraction:
    """`1500m` -> 3/2, `2Gi` -> 2147483648, `1e3` -> 1000, None -> 0, as resource.Quantity reads them.

    Exact, but for numbers of more than thirty digits, which become some other number of that kind.

    Raises:
        ValueError: the text isn't a quantity; the message names it.
    """
    if text is None:
        return Fraction(0)
    found = _FORM.fullmatch(str(text)) if _may_be_number(text) else None
    if not found:
        raise ValueError(f"{text!r} is not a resource quantity")
    sign, digits, exponent, suffix = found.groups()
    number, power = Decimal(digits), int(exponent or 0)
    if not number:
        return Fraction(0)
    size = number.adjusted() + power
    if abs(size) > _EXPONENT:  # `1e9999` is taken and kept by the apiserver, but nothing that one should write out
        value = Fraction(10) ** (_EXPONENT if size > 0 else -_EXPONENT)
    else:
        value = Fraction(number) * Fraction(10) ** power
    return value * _SUFFIXES[suffix] * (-1 if sign == "-" else 1)


def milli(text: Any, *, unreadable: int = MOST) -> int:
    """Thousandths, rounded up: CPU as kube-scheduler counts it. 0 to `MOST`; `unreadable` for what is no quantity."""
    return _counted(text, 1000, unreadable)


def whole(text: Any, *, unreadable: int = MOST) -> int:
    """Units (bytes, pods, devices), rounded up. 0 to `MOST`; `unreadable` for what is no quantity."""
    return _counted(text, 1, unreadable)


def _counted(text: Any, parts: int, unreadable: int) -> int:
    try:
        return min(MOST, max(0, math.ceil(quantity(text) * parts)))
    except ValueError:
        return unreadable


def _may_be_number(text: Any) -> bool:
    return isinstance(text, (str, int, float)) and not isinstance(text, bool) and len(str(text)) <= _LENGTH
