"""Divides items by capacities that are given on the command line or read from a fleet."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from gpufleet_cli.errors import InputError
from gpufleet_cli.options.choices import DeviceCapacity
from gpufleet_cli.options.parsers import to_integer
from gpufleet_operator.distribution import Shards, apportion
from gpufleet_operator.placement.errors import InvalidCapacityError
from gpufleet_operator.placement.explain.phrases import PHRASES
from gpufleet_operator.placement.model import DeviceState, ReasonCount


@dataclass(frozen=True, slots=True)
class ReceiverCapacity:
    """Capacity of one receiver of items. `text` is how the user wrote it, or the integer read from the fleet."""

    number: float | Fraction
    text: str


def divide(items: int, capacities: Mapping[str, ReceiverCapacity], maxima: Iterable[str]) -> Shards[str]:
    """Divides the items by the largest remainder method.

    Args:
        items: Number of items.
        capacities: By receiver, in the order in which they get their ranges.
        maxima: `5` for every receiver, `NAME=5` for one of them, which takes precedence.

    Raises:
        InputError: A capacity or maximum is invalid.
    """
    default, limits = _limits(maxima)
    if default is not None:
        limits = {**dict.fromkeys(capacities, default), **limits}
    try:
        return apportion(items, {name: c.number for name, c in capacities.items()}, limits or None)
    except InvalidCapacityError as error:
        raise InputError(str(error)) from error


def parse_capacities(given: Sequence[str]) -> dict[str, ReceiverCapacity]:
    """Returns `["a=1", "b=2.5"]` by name, in order. Decimal fractions are exact: 0.1 is a tenth.

    Raises:
        InputError: A name or number is missing or malformed, or a name occurs twice.
    """
    found: dict[str, ReceiverCapacity] = {}
    for text in given:
        name, number = _pair("--capacity", text)
        if name in found:
            raise InputError(f"--capacity {text}: duplicate name {name}")
        try:
            found[name] = ReceiverCapacity(_exact(number), number)
        except ValueError:
            raise InputError(f"--capacity {text}: must be a number") from None
    return found


def capacities_of_devices(devices: Iterable[DeviceState], measure: DeviceCapacity) -> dict[str, ReceiverCapacity]:
    """Returns the capacity by UUID, in MiB, or 1 each. It is 0 for a device that does not report its memory.

    Raises:
        InputError: There is no device.
    """
    amounts = {device.uuid: _capacity(device, measure) for device in devices}
    if not amounts:
        raise InputError("no free, healthy GPU in the fleet to divide the items among")
    return {uuid: ReceiverCapacity(amount, str(amount)) for uuid, amount in amounts.items()}


def notes(rejected: Iterable[ReasonCount]) -> Iterator[str]:
    """Yields a note on the devices that get no items."""
    counts = [f"{r.devices:,} {PHRASES[r.reason]}" for r in rejected]
    if counts:
        yield f"GPUs left out: {', '.join(counts)}"


def _exact(text: str) -> float | Fraction:
    """Returns the number as a fraction. Raises ValueError as `float` does."""
    number = float(text)
    # NaN, infinity and negative numbers are rejected later; a 0 may have an exponent that is not to be expanded.
    if not (math.isfinite(number) and number > 0):
        return number
    try:
        return Fraction(text)
    except ValueError:  # more digits than Python converts to an integer, and than a float has
        return number


def _capacity(device: DeviceState, measure: DeviceCapacity) -> int:
    match measure:
        case DeviceCapacity.FREE_MEMORY:
            return max(0, device.memory_free_mib or 0)
        case DeviceCapacity.TOTAL_MEMORY:
            return device.memory_total_mib or 0
        case DeviceCapacity.UNIFORM:
            return 1
        case _:
            assert_never(measure)


def _limits(given: Iterable[str]) -> tuple[int | None, dict[str, int]]:
    default: int | None = None
    limits: dict[str, int] = {}
    for text in given:
        if "=" not in text:
            if default is not None:
                raise InputError(f"--max {text}: duplicate maximum for every receiver")
            default = to_integer(f"--max {text}", text, 0)
            continue
        name, number = _pair("--max", text)
        if name in limits:
            raise InputError(f"--max {text}: duplicate name {name}")
        limits[name] = to_integer(f"--max {text}", number, 0)
    return default, limits


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise InputError(f"{option} {text}: must be NAME=NUMBER")
    return name, value
