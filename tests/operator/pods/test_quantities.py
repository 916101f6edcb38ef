"""Quantities: parsed exactly, counted without exceptions."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.pods.quantities import MAX_AMOUNT, milli, quantity, whole

READ: dict[Any, Fraction] = {
    "1500m": Fraction(3, 2),
    "2Gi": Fraction(2**31),
    "1e3": Fraction(1000),
    "1E3": Fraction(1000),
    "8E": Fraction(8 * 10**18),
    ".5": Fraction(1, 2),
    "1.": Fraction(1),
    "+1k": Fraction(1000),
    "-1": Fraction(-1),
    "100n": Fraction(1, 10**7),
    "0e9999": Fraction(0),
    None: Fraction(0),
    7: Fraction(7),
    0.5: Fraction(1, 2),
}


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_quantity(text: object, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1ki", "e3", True, [], {}, "1" * 200, float("nan")])
def test_malformed_quantity(text: object) -> None:
    with pytest.raises(ValueError, match="is not a resource quantity"):
        quantity(text)


def test_huge_amounts_are_capped() -> None:
    """The apiserver accepts an exponent of any size and stores it unchanged."""
    assert milli("8E") == whole("1e9999") == whole("9" * 90) == milli("1e999999999999999999") == MAX_AMOUNT
    assert whole("1e-9999") == 1
    assert milli("-1") == 0
    assert (milli("many"), whole("many", malformed=0)) == (MAX_AMOUNT, 0)


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()))
def test_any_text_has_an_amount_in_range(value: object) -> None:
    assert 0 <= milli(value) <= MAX_AMOUNT
    assert 0 <= whole(value) <= MAX_AMOUNT
