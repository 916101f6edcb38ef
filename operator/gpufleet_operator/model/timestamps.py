"""RFC 3339 in and out. Everything inside the operator is an aware datetime in UTC."""

from datetime import UTC, datetime


def parse(text: str) -> datetime:
    """`2026-01-02T03:04:05Z`, with or without a fraction or an offset.

    Raises:
        ValueError: not a timestamp.
    """
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds(moment: datetime) -> str:
    """To the second, as Kubernetes writes metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micros(moment: datetime) -> str:
    """To the microsecond, where order within a second matters (metav1.MicroTime)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
