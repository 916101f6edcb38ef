"""Numbers on the command line, refused with the option and the value in one line."""

import math
from collections.abc import Callable

from gpufleet_cli.errors import InputError


def to_whole(shown: str, text: str, least: int) -> int:
    """A whole number of at least `least`. Raises InputError that begins with `shown`, what the user wrote."""
    try:
        number = int(text)
    except ValueError:
        raise InputError(f"{shown}: must be a whole number") from None
    if number < least:
        raise InputError(f"{shown}: must be {least} or more")
    return number


def whole(option: str, least: int) -> Callable[[str], int]:
    """A parser of whole numbers. Raises InputError."""
    return lambda text: to_whole(f"{option} {text}", text, least)


def seconds(option: str) -> Callable[[str], float]:
    """A parser of seconds. Raises InputError."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{option} {text}: must be seconds, 0 or more")
        return number

    return parse
