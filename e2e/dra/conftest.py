"""The second node of the cluster has transport DRA; the first one has the device plugin."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_e2e.support.api import NODES
from gpufleet_e2e.support.claims import CLASSES, OWN_CLASS, TRANSPORT_LABEL, device_class, serves_claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.polling import eventually

READY_SECONDS = 60


@pytest.fixture(scope="module")
def node(fleet: Fleet) -> Iterator[str]:
    """The node with transport DRA."""
    name = fleet.nodes[1]
    fleet.api.patch(f"{NODES}/{name}", {"metadata": {"labels": {TRANSPORT_LABEL: "DRA"}}})
    fleet.install(values={"transport": "PerNode"})
    eventually(partial(serves_claims, fleet, name), within=READY_SECONDS)
    fleet.api.create(CLASSES, device_class())
    yield name
    fleet.api.delete(f"{CLASSES}/{OWN_CLASS}")
    fleet.api.patch(f"{NODES}/{name}", {"metadata": {"labels": {TRANSPORT_LABEL: None}}})
    fleet.restore_later()
