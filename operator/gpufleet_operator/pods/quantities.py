"""Parses Kubernetes resource quantities.

`quantity` rejects malformed ones. `milli` and `whole` never raise, and never exceed what sums and the engine's arrays
can hold: they process what the apiserver has accepted already.
"""

import math
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

MAX_AMOUNT: Final = 2**60
"""More than any node has. A few such amounts still add up to less than 2^63."""

_SUFFIXES = {
    **{s: Fraction(1, 10 ** (3 * i)) for i, s in enumerate(("", "m", "u", "n"))},
    **{s: Fraction(10 ** (3 * i)) for i, s in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{s: Fraction(1024**i) for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}

_FORM = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?([numkMGTPE]?|[KMGTPE]i)")
_MAX_LENGTH = 100
_MAX_EXPONENT = 30
"""With any suffix, a greater power of ten is far above `MAX_AMOUNT`, and its inverse far below a nano."""


def quantity(text: Any) -> Fraction:
    """Returns the value of a quantity, as resource.Quantity parses it.

    `1500m` -> 3/2, `2Gi` -> 2147483648, `1e3` -> 1000, None -> 0. Exact for numbers of up to thirty digits; larger and
    smaller ones become a number of that order.

    Raises:
        ValueError: The text is not a quantity.
    """
    if text is None:
        return Fraction(0)
    return _parsed(text) if isinstance(text, str) else _parse(text)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Fraction:
    return _parse(text)


def _parse(text: Any) -> Fraction:
    found = _FORM.fullmatch(str(text)) if _may_be_number(text) else None
    if not found:
        raise ValueError(f"{text!r} is not a resource quantity")
    sign, digits, exponent, suffix = found.groups()
    if exponent is None and digits.isdigit() and len(digits) <= _MAX_EXPONENT:
        scale, amount = _SUFFIXES[suffix], int(f"{sign}{digits}")
        return Fraction(amount * scale.numerator) if scale.denominator == 1 else Fraction(amount, scale.denominator)
    number, power = Decimal(digits), int(exponent or 0)
    if not number:
        return Fraction(0)
    size = number.adjusted() + power
    if abs(size) > _MAX_EXPONENT:  # the apiserver accepts `1e9999`, whose digits would fill the memory
        value = Fraction(10) ** (_MAX_EXPONENT if size > 0 else -_MAX_EXPONENT)
    else:
        value = Fraction(number) * Fraction(10) ** power
    return value * _SUFFIXES[suffix] * (-1 if sign == "-" else 1)


def milli(text: Any, *, malformed: int = MAX_AMOUNT) -> int:
    """Returns thousandths, rounded up (as CPU is counted): 0 to `MAX_AMOUNT`; `malformed` if not a quantity."""
    return _rounded_up(text, 1000, malformed)


def whole(text: Any, *, malformed: int = MAX_AMOUNT) -> int:
    """Returns units (bytes, pods, devices), rounded up: 0 to `MAX_AMOUNT`; `malformed` if not a quantity."""
    return _rounded_up(text, 1, malformed)


def _rounded_up(text: Any, parts: int, malformed: int) -> int:
    return _rounded(text, parts, malformed) if isinstance(text, str) else _round(text, parts, malformed)


@lru_cache(maxsize=4096)
def _rounded(text: str, parts: int, malformed: int) -> int:
    return _round(text, parts, malformed)


def _round(text: Any, parts: int, malformed: int) -> int:
    try:
        return min(MAX_AMOUNT, max(0, math.ceil(quantity(text) * parts)))
    except ValueError:
        return malformed


def _may_be_number(text: Any) -> bool:
    return isinstance(text, (str, int, float)) and not isinstance(text, bool) and len(str(text)) <= _MAX_LENGTH
