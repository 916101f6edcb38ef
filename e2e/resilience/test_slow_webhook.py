"""An admission webhook hangs for the pods of one namespace."""

import secrets
import time
from collections.abc import Iterator

import pytest

from gpufleet_e2e.faults.hanging_webhook import pod_creations_hang
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

TIMEOUT_SECONDS = 15
"""After which the operator takes a creation for failed."""
USUAL_SECONDS = 8
"""From a workload to the release of its pod; less than a second on an idle machine."""


@pytest.fixture
def other(fleet: Fleet) -> Iterator[TestNamespace]:
    found = TestNamespace(fleet, f"other-{secrets.token_hex(2)}")
    yield found
    found.clear()


def test_hanging_webhook_delays_only_its_namespace(
    namespace: TestNamespace, other: TestNamespace, fleet: Fleet
) -> None:
    """Mechanism: a pass does not wait for slow writes; the creations of the namespace stay in flight."""
    with pod_creations_hang(fleet.api, namespace.name) as server:
        before = len(server.connections)
        namespace.apply(gpuworkload("hangs", replicas=3))

        def creation_hangs() -> None:
            assert len(server.connections) > before, "the operator has created no pod"

        eventually(creation_hangs, within=30)
        began = time.monotonic()
        other.apply(gpuworkload("quick"))

        def released() -> None:
            assert not other.pod("quick")["spec"].get("schedulingGates"), "gated"

        eventually(released, within=USUAL_SECONDS)
        assert time.monotonic() - began < USUAL_SECONDS < TIMEOUT_SECONDS
        assert not namespace.all_pods("hangs")
        other.verify("quick")
    namespace.verify("hangs")
