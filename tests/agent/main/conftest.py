"""Whole agents that wait a tenth of what they wait in a cluster, or less."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_agent import agent
from gpufleet_agent.kube import telemetry_watch
from gpufleet_agent.plugin import server
from gpufleet_agent.publish import publisher
from gpufleet_agent.sampling.timing import Timing


@pytest.fixture(autouse=True)
def short_waits() -> Iterator[None]:
    """Not undone by a test that undoes its own patches while the agent runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "Timing", partial(Timing, event_wait=0.05, retry_first=0.1))
        patch.setattr(publisher, "TICK_SECONDS", 0.1)
        patch.setattr(server, "START_PATIENCE_SECONDS", 0.5)
        patch.setattr(telemetry_watch, "MAX_BACKOFF_SECONDS", 0.5)
        yield
