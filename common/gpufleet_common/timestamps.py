"""RFC 3339 timestamps, as Kubernetes reads and writes them."""

from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)


def parse(text: str) -> datetime:
    """Returns the moment in UTC.

    Args:
        text: `2026-01-02T03:04:05Z`, with or without a fraction, with any offset.

    Raises:
        ValueError: The text is not a timestamp, has no offset, or is out of range in UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


def to_epoch(text: object) -> float | None:
    """Returns a timestamp in seconds since 1970; None for anything else, and outside of the years 1970 to 9998."""
    if not isinstance(text, str):
        return None
    try:
        moment = parse(text)
    except ValueError:
        return None
    return moment.timestamp() if _EPOCH <= moment < _END else None


def from_epoch(seconds: float) -> datetime:
    """Returns the moment so many seconds after 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def seconds(moment: datetime) -> str:
    """Formats to the second, as metav1.Time."""
    return _format(moment, "seconds")


def micros(moment: datetime) -> str:
    """Formats to the microsecond, as metav1.MicroTime, where order within a second matters."""
    return _format(moment, "microseconds")


def _format(moment: datetime, timespec: str) -> str:
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
