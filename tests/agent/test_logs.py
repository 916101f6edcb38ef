import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gpufleet_agent.logs import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_json_has_one_object_per_line_for_our_events_and_for_warnings_of_libraries() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    structlog.get_logger("x").info("allocated", devices=2)
    structlog.get_logger("x").debug("not this")
    logging.getLogger("httpx2").info("nor this")
    logging.getLogger("httpx2").warning("but %s", "this")
    ours, theirs = map(json.loads, out.getvalue().splitlines())
    assert ours | {"timestamp": ""} == {"event": "allocated", "devices": 2, "level": "info", "timestamp": ""}
    assert theirs["event"] == "but this"
    assert theirs["level"] == "warning"
    assert ours["timestamp"].endswith("Z")


def test_an_error_in_json_keeps_its_traceback_on_the_same_line() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    try:
        raise ValueError("broken")
    except ValueError as error:
        structlog.get_logger("x").error("failed", exc_info=error)
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line["exception"][0]["exc_value"] == "broken"


def test_console_is_plain_text_without_colours_when_nobody_looks() -> None:
    out = io.StringIO()
    configure("debug", "console", out)
    structlog.get_logger("x").debug("allocated", devices=2)
    assert "\x1b" not in out.getvalue()
    assert "devices=2" in out.getvalue()
