"""A node loses power while containers have devices by claims."""

from functools import partial

import pytest

from gpufleet_e2e.proof import Source
from gpufleet_e2e.support.api import pods
from gpufleet_e2e.support.claims import DRIVER, serves_claims
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

pytestmark = pytest.mark.installs("node")

BOOTED_SECONDS = 120


def test_pod_has_the_same_devices_after_a_power_cut(namespace: TestNamespace, fleet: Fleet, node: str) -> None:
    """Mechanism: the CDI directory is empty, and the kubelet prepares the claims again once the agent runs."""
    fleet.move_operator_from(node)
    namespace.apply(gpuworkload("stays", count=2, node=node))
    (before,) = namespace.verify("stays")["stays"].replicas
    assert Source.CLAIM in before.says
    machine = fleet.node(node)
    machine.kill()
    machine.boot()
    eventually(lambda: _has_restarted(namespace, before.pod), within=BOOTED_SECONDS)
    eventually(partial(serves_claims, fleet, node), within=BOOTED_SECONDS)
    (after,) = namespace.verify("stays", within=BOOTED_SECONDS)["stays"].replicas
    assert (after.pod_uid, after.picked) == (before.pod_uid, before.picked)
    files = machine.run(["sh", "-c", f"ls /var/run/cdi | grep '^{DRIVER}-claim-.*json$'"]).stdout.split()
    assert len(files) == 1, files


def _has_restarted(namespace: TestNamespace, pod: str) -> None:
    status = namespace.fleet.api.get(f"{pods(namespace.name)}/{pod}")["status"]
    (container,) = status["containerStatuses"]
    assert container["restartCount"] == 1, status
    assert "running" in container["state"], status
