"""kstatus' own code and Argo CD's interpreter give each state of a workload one verdict: what GitOps tools wait for."""

from collections.abc import Iterator

import pytest

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import JsonObject, workloads
from gpufleet_e2e.support.manifests import container, gpuworkload, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.argo_health import health
from gpufleet_e2e.support.programs.kstatus import statuses
from gpufleet_e2e.support.sandbox import READY_SECONDS, TestNamespace
from gpufleet_testing.kstatus import kstatus

EXPECTED = {
    "runs": "Current",
    "suspended": "Current",
    "completes": "Current",
    "fails": "Failed",
    "typo": "Failed",
    "waits": "InProgress",
    "no-image": "InProgress",
    "leaves": "Terminating",
}
HEALTH = {
    "runs": "Healthy",
    "suspended": "Suspended",
    "completes": "Healthy",
    "fails": "Degraded",
    "typo": "Degraded",
    "waits": "Progressing",
    "no-image": "Progressing",
}
"""Argo CD does not ask for the health of an object that is being deleted."""
FINALIZER = "example.com/e2e"


@pytest.fixture
def leaving(namespace: TestNamespace) -> Iterator[None]:
    """A workload that is being deleted until the end of the test."""
    manifest = gpuworkload("leaves", suspend=True)
    manifest["metadata"]["finalizers"] = [FINALIZER]
    namespace.apply(manifest)
    namespace.delete("leaves")
    yield
    namespace.fleet.api.patch(f"{workloads(namespace.name)}/leaves", {"metadata": {"finalizers": None}})


@pytest.mark.usefixtures("leaving")
def test_each_state_has_its_kstatus_status(namespace: TestNamespace) -> None:
    def ends(code: int) -> JsonObject:
        return pod_spec(container(command=("sh", "-c", f"exit {code}")), restartPolicy="Never")

    namespace.apply(
        gpuworkload("runs"),
        gpuworkload("suspended", suspend=True),
        gpuworkload("completes", template=ends(0)),
        gpuworkload("fails", template=ends(3), runPolicy={"backoffLimit": 0}),
        gpuworkload("typo", template=pod_spec(container(), nodeName="node-1")),
        gpuworkload("waits", uuids=("GPU-none",)),
        gpuworkload("no-image", template=pod_spec(container(image="localhost/none:1", imagePullPolicy="Never"))),
    )

    def found() -> None:
        bodies = [namespace.workload(name) for name in EXPECTED]
        given = dict(zip(EXPECTED, statuses(bodies), strict=True))
        assert given == EXPECTED, "; ".join(
            namespace.describe(name) for name in EXPECTED if given[name] != EXPECTED[name]
        )
        assert given == {name: str(kstatus(body)) for name, body in zip(EXPECTED, bodies, strict=True)}
        assert objects.condition(bodies[1], "Suspended").get("status") == "True"

    eventually(found, within=READY_SECONDS)
    bodies = [namespace.workload(name) for name in HEALTH]
    healths = dict(zip(HEALTH, health("GPUWorkload", bodies), strict=True))
    assert {name: status for name, (status, _) in healths.items()} == HEALTH
    assert "insufficient" in healths["waits"][1] or "available" in healths["waits"][1]
    assert "ImagePullBackOff" in healths["no-image"][1] or "ErrImageNeverPull" in healths["no-image"][1]
    telemetry = [namespace.fleet.telemetry(node) for node in namespace.fleet.nodes]
    assert {status for status, _ in health("GPUTelemetry", telemetry)} == {"Healthy"}
    unknown = {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUWorkload",
        "metadata": {"name": "new", "generation": 1},
    }
    assert health("GPUWorkload", [unknown]) == [("Progressing", "Waiting for the operator")]
    changed = {**bodies[0], "metadata": {**bodies[0]["metadata"], "generation": 99}}
    assert health("GPUWorkload", [changed])[0][0] == "Progressing"
