"""Sets up logging once, when a process starts: one schema for agent and operator, and for their libraries."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Sends our events, and warnings and errors of libraries, to one stream.

    JSON lines have `event`, `level`, `logger` and `timestamp`, an `exception` as a list of dicts after an error, and
    the facts of the event.

    Args:
        level: One of `LEVELS`: the least severe event that is logged.
        log_format: One of `FORMATS`.
        stream: Where lines are written; None: stderr.
    """
    out = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    if log_format == "json":
        # Without local variables: one of them may hold a token.
        tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
        rendering = [tracebacks, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda name: _logger(name, threshold),
        # Not cached, so that a test can configure again.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    # For libraries, which log each request at the level `info`.
    logging.basicConfig(level=max(logging.WARNING, threshold), handlers=[handler], force=True)


def _logger(name: str, threshold: int) -> logging.Logger:
    logger = logging.getLogger(name)
    if logger.level != threshold:
        logger.setLevel(threshold)
    return logger
