"""With `watchNamespaces` the operator places work there only, leaves the rest alone, and says so."""

import secrets
from collections.abc import Iterator

import pytest

from gpufleet_e2e.support.api import pods, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import NAMESPACE, RELEASE
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_e2e.support.sandbox import TestNamespace

OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
SOON_SECONDS = 30


@pytest.fixture
def elsewhere(fleet: Fleet) -> Iterator[TestNamespace]:
    """A namespace with running and waiting work from before it was left out."""
    found = TestNamespace(fleet, f"elsewhere-{secrets.token_hex(2)}")
    found.apply(gpuworkload("runs"), gpuworkload("waits", node="nowhere"))
    found.wait_ready("runs")
    found.wait_condition("waits", "Placed", "False", "NoDevicesAvailable")
    yield found
    fleet.install()
    found.clear()


def test_other_namespaces_are_left_alone_and_named(
    namespace: TestNamespace, elsewhere: TestNamespace, fleet: Fleet
) -> None:
    before = {pod["metadata"]["uid"] for pod in fleet.api.list(pods(elsewhere.name))}
    fleet.install(values={"watchNamespaces": [namespace.name]})

    namespace.apply(gpuworkload("placed"))
    namespace.verify("placed")
    rejected = fleet.api.try_create(workloads(elsewhere.name), gpuworkload("late"))
    assert not rejected.allowed
    assert (
        f"namespace {elsewhere.name} is not one in which gpufleet places workloads: {namespace.name}"
        in rejected.message
    )

    # What would need writes there: a second replica, and a pod that is gone.
    fleet.api.patch(f"{workloads(elsewhere.name)}/runs", {"spec": {"replicas": 2}})
    fleet.api.delete(f"{pods(elsewhere.name)}/{elsewhere.pod('waits')['metadata']['name']}")
    eventually(lambda: _forbidden(fleet, elsewhere), within=SOON_SECONDS)
    left = {pod["metadata"]["uid"] for pod in fleet.api.list(pods(elsewhere.name))}
    assert left < before
    assert len(left) == 1
    namespace.apply(gpuworkload("also-placed"))
    namespace.wait_ready("also-placed")
    assert set(fleet.operator_restarts().values()) == {0}
    _doctor_names(fleet, elsewhere)


def _forbidden(fleet: Fleet, elsewhere: TestNamespace) -> None:
    log = fleet.api.text(f"{pods(NAMESPACE)}/{fleet.operator_pod()['metadata']['name']}/log")
    refusals = [line for line in log.splitlines() if elsewhere.name in line and "forbidden" in line]
    assert any(OPERATOR_USER in line for line in refusals), refusals[-3:]


def _doctor_names(fleet: Fleet, elsewhere: TestNamespace) -> None:
    done = CommandLine(fleet.cluster).run("doctor", "-o", "json")
    causes = [one["cause"] for one in done.json["problems"] if one["check"] == "OperatorBehind"]
    assert causes, done.out
    assert f"{elsewhere.name}/runs" in causes[0]
