from datetime import UTC, datetime, timedelta, timezone

import pytest

from gpufleet_common import timestamps

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.600000+00:00", "2026-01-02T05:04:05.6+02:00"],
)
def test_parse_accepts_fractions_and_offsets(text: str) -> None:
    assert timestamps.parse(text) == MOMENT
    assert timestamps.parse(text).tzinfo is UTC
    assert timestamps.to_epoch(text) == MOMENT.timestamp()


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "0001-01-01T00:00:00+05:00"]
)
def test_parse_rejects_what_names_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"time zone|Invalid|month|range"):
        timestamps.parse(text)
    assert timestamps.to_epoch(text) is None


@pytest.mark.parametrize("value", [None, 5, "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"])
def test_to_epoch_is_none_without_a_usable_time(value: object) -> None:
    assert timestamps.to_epoch(value) is None


def test_formats_are_those_of_kubernetes() -> None:
    local = MOMENT.astimezone(timezone(timedelta(hours=2)))
    assert timestamps.seconds(local) == "2026-01-02T03:04:05Z"
    assert timestamps.micros(local) == "2026-01-02T03:04:05.600000Z"
    assert timestamps.micros(timestamps.from_epoch(MOMENT.timestamp())) == "2026-01-02T03:04:05.600000Z"
    assert timestamps.seconds(datetime(33, 1, 1, tzinfo=UTC)) == "0033-01-01T00:00:00Z"
