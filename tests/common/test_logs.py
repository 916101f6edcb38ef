import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gpufleet_common.logs import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("name", ["gpufleet_agent.agent", "gpufleet_operator.main"])
def test_json_lines_have_one_schema_for_our_events_and_those_of_libraries(name: str) -> None:
    out = io.StringIO()
    configure("info", "json", out)
    structlog.get_logger(name).info("allocated", devices=2)
    structlog.get_logger(name).debug("below the level")
    logging.getLogger("httpx2").info("below warning")
    logging.getLogger("httpx2").warning("cut off after %s", "5 s")
    ours, theirs = map(json.loads, out.getvalue().splitlines())
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"event": "allocated", "devices": 2, "level": "info", "logger": name}
    assert theirs.pop("timestamp").endswith("Z")
    assert theirs == {"event": "cut off after 5 s", "level": "warning", "logger": "httpx2"}


def test_debug_level_logs_our_debug_events_only() -> None:
    out = io.StringIO()
    configure("debug", "json", out)
    structlog.get_logger("gpufleet_agent").debug("sampled")
    logging.getLogger("kopf").info("not logged")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["sampled"]


def test_error_level_silences_warnings_of_libraries() -> None:
    out = io.StringIO()
    configure("error", "json", out)
    logging.getLogger("kopf").warning("not logged")
    structlog.get_logger("gpufleet_agent").warning("not logged")
    logging.getLogger("kopf").error("logged")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["logged"]


@pytest.mark.parametrize(
    "by", [structlog.get_logger("gpufleet_agent"), logging.getLogger("kopf")], ids=["our", "library"]
)
def test_an_error_in_json_has_its_traceback_on_the_same_line(by: structlog.BoundLogger | logging.Logger) -> None:
    out = io.StringIO()
    configure("info", "json", out)
    token = "secret"
    try:
        raise ValueError("broken")
    except ValueError as error:
        by.error("failed", exc_info=error)
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert line["exception"][0]["exc_value"] == "broken"
    assert token not in out.getvalue(), "local variables are not logged"


def test_console_without_a_terminal_is_plain_text() -> None:
    out = io.StringIO()
    configure("debug", "console", out)
    structlog.get_logger("x").debug("allocated", devices=2)
    assert "\x1b" not in out.getvalue()
    assert "devices=2" in out.getvalue()
