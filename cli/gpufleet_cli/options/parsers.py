"""Parsers of options, whose error has the option and the value."""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from gpufleet_cli.errors import InputError

E = TypeVar("E", bound=StrEnum)


def to_integer(given: str, text: str, minimum: int) -> int:
    """Returns `text` as an integer. Raises InputError, which begins with `given`, when it is malformed or too small."""
    try:
        number = int(text)
    except ValueError:
        raise InputError(f"{given}: must be an integer") from None
    if number < minimum:
        raise InputError(f"{given}: must be greater than or equal to {minimum}")
    return number


def integer(option: str, minimum: int) -> Callable[[str], int]:
    """Returns a parser of integers of at least `minimum`, which raises InputError."""
    return lambda text: to_integer(f"{option} {text}", text, minimum)


def choice(option: str, values: type[E]) -> Callable[[str], E]:
    """Returns a parser of one of `values`, which raises InputError."""

    def parse(text: str) -> E:
        try:
            return values(text)
        except ValueError:
            raise InputError(f"{option} {text}: must be one of {', '.join(values)}") from None

    return parse


def seconds(option: str) -> Callable[[str], float]:
    """Returns a parser of seconds, which raises InputError."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{option} {text}: must be a number of seconds greater than or equal to 0")
        return number

    return parse
