"""`gpufleet distribute`: divides items by capacities that are given by hand or read from a fleet."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, assert_never

from gpufleet_cli.errors import InputError
from gpufleet_cli.options.parsers import to_whole
from gpufleet_cli.options.shared import By
from gpufleet_operator.distribution import Shares, shares
from gpufleet_operator.placement.errors import InvalidCapacityError
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import DeviceState, Rejected


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a receiver's part goes by. `text` is what the user wrote, or the whole number of a fleet's device."""

    number: float | Fraction
    text: str


def divide(items: int, capacities: Mapping[str, Capacity], maxima: Iterable[str]) -> Shares[str]:
    """Divide by largest remainder.

    Args:
        items: how many there are.
        capacities: by receiver, in the order in which they get their ranges.
        maxima: `5` for everyone, `NAME=5` for one; the latter goes first.

    Raises:
        InputError: something can't be divided by, or names nobody.
    """
    everyone, limits = _limits(maxima)
    if everyone is not None:
        limits = {**dict.fromkeys(capacities, everyone), **limits}
    try:
        return shares(items, {name: c.number for name, c in capacities.items()}, limits or None)
    except InvalidCapacityError as error:
        raise InputError(str(error)) from error


def capacities(given: Sequence[str]) -> dict[str, Capacity]:
    """`["a=1", "b=2.5"]` by name, in order; 0.1 is a tenth, not the float next to it.

    Raises:
        InputError: no name, no number, or a name that stands twice.
    """
    found: dict[str, Capacity] = {}
    for text in given:
        name, number = _pair("--capacity", text)
        if name in found:
            raise InputError(f"--capacity {text}: {name} stands twice")
        try:
            found[name] = Capacity(_exact(number), number)
        except ValueError:
            raise InputError(f"--capacity {text}: must be a number") from None
    return found


def of_devices(devices: Iterable[DeviceState], by: By) -> dict[str, Capacity]:
    """Capacity by UUID, in MiB, or 1 each; a device that doesn't report its memory has none.

    Raises:
        InputError: there is no device.
    """
    amounts = {device.uuid: _capacity(device, by) for device in devices}
    found = {uuid: Capacity(amount, str(amount)) for uuid, amount in amounts.items()}
    if not found:
        raise InputError("no GPU of the fleet is free and healthy, so there is nobody to divide the items among")
    return found


def notes(rejected: Iterable[Rejected]) -> Iterator[str]:
    """What to tell the user of devices that take no part."""
    counts = [f"{r.devices:,} {PHRASES[r.reason]}" for r in rejected]
    if counts:
        yield f"GPUs that can't be given to anybody take no part: {', '.join(counts)}"


def as_json(divided: Shares[str]) -> dict[str, Any]:
    """`{"shares": {name: items}, "ranges": {name: [start, end)}, "unassigned": items}`."""
    return {
        "shares": dict(divided.items),
        "ranges": {name: list(span) for name, span in divided.ranges.items()},
        "unassigned": divided.unassigned,
    }


def _exact(text: str) -> float | Fraction:
    """As written, where that is above 0 and no float's overflow. Raises ValueError as `float` does."""
    number = float(text)
    # NaN, infinity and negatives are refused later; 0 may hide an exponent that as a fraction would fill the memory.
    if not (math.isfinite(number) and number > 0):
        return number
    try:
        return Fraction(text)
    except ValueError:  # more digits than Python turns into a whole number: beyond any float's precision
        return number


def _capacity(device: DeviceState, by: By) -> int:
    match by:
        case By.FREE_MEMORY:
            return max(0, device.memory_free_mib or 0)
        case By.TOTAL_MEMORY:
            return device.memory_total_mib or 0
        case By.UNIFORM:
            return 1
        case _:
            assert_never(by)


def _limits(given: Iterable[str]) -> tuple[int | None, dict[str, int]]:
    everyone: int | None = None
    limits: dict[str, int] = {}
    for text in given:
        if "=" not in text:
            if everyone is not None:
                raise InputError(f"--max {text}: the maximum for everyone stands twice")
            everyone = to_whole(f"--max {text}", text, 0)
            continue
        name, number = _pair("--max", text)
        if name in limits:
            raise InputError(f"--max {text}: {name} stands twice")
        limits[name] = to_whole(f"--max {text}", number, 0)
    return everyone, limits


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise InputError(f"{option} {text}: must be NAME=NUMBER")
    return name, value
