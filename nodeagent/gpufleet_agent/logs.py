"""Logging set up once, at the start of the process: JSON lines for machines, or plain text for people, on stderr."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send our own events, and warnings of the libraries, to one stream in one format.

    Args:
        level: One of `LEVELS`.
        log_format: One of `FORMATS`.
        stream: Where to; stderr by default.
    """
    out = stream or sys.stderr
    common: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    )
    structlog.configure(
        processors=[*common, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        # Not cached: loggers of modules stay configurable, and an event a second costs nothing.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    # The HTTP client tells of every request at the level "info".
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
