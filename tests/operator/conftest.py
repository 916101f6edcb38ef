"""Silences the operator's log."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Suppresses the thousands of log lines of a simulated cluster, and only those: other tests capture theirs."""
    before = structlog.get_config()
    structlog.configure(**{**before, "wrapper_class": structlog.make_filtering_bound_logger(logging.CRITICAL)})
    yield
    structlog.configure(**before)
