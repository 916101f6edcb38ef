"""Kueue on the tests' cluster."""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.programs import kueue, kueue_queue
from gpufleet_e2e.support.sandbox import TestNamespace


@pytest.fixture(scope="module")
def installed(fleet: Fleet) -> Iterator[None]:
    """Kueue, and an operator that answers its checks."""
    if why := kueue.missing():
        pytest.skip(why)
    with kueue.kueue(fleet.cluster):
        fleet.install(operator={"kueue": True})
        yield
        fleet.install()


@pytest.fixture
def queue(
    installed: None, namespace: TestNamespace, fleet: Fleet, request: pytest.FixtureRequest
) -> Iterator[kueue_queue.Queue]:
    """A queue of the test's namespace; with the check of gpufleet unless the parameter is False."""
    del installed
    with kueue_queue.queue(fleet.api, namespace.name, checked=getattr(request, "param", True)) as found:
        yield found
        namespace.clear()
