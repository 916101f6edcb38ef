"""Silences the operator's log."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """Thousands of log lines of a simulated cluster help nobody."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
