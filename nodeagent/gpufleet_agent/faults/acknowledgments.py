"""Parses the annotation by which an administrator acknowledges faults."""

from collections.abc import Iterator

import structlog

from gpufleet_agent.sampling.saved_state import FaultAcknowledgment
from gpufleet_common import timestamps

log = structlog.get_logger(__name__)


def read_acknowledgments(text: str) -> tuple[FaultAcknowledgment, ...]:
    """Returns the acknowledgments in the annotation's value, without malformed entries.

    Args:
        text: Timestamps separated by commas, each for the whole node or, after `<uuid>=`, for one device.
    """
    return tuple(_parse(text))


def _parse(text: str) -> Iterator[FaultAcknowledgment]:
    for entry in map(str.strip, text.split(",")):
        uuid, _, time = entry.rpartition("=")
        until = timestamps.to_epoch(time)
        if until is not None:
            yield FaultAcknowledgment(until, uuid or None)
        elif entry:
            log.warning("ignoring malformed acknowledgment", entry=entry)
