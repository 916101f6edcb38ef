"""Each platform, installed as far as it goes on nodes without its driver; doctor says what is missing."""

from collections.abc import Iterator
from functools import partial

import pytest

from gpufleet_e2e.support.api import CRDS, NODES, JsonObject, events
from gpufleet_e2e.support.fleet import AGENTS, Fleet
from gpufleet_e2e.support.install import NAMESPACE, install
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.command_line import CommandLine
from gpufleet_testbed import ClusterError

PRESENT = "nvidia.com/gpu.present"
"""The label of GPU feature discovery: doctor expects a driver on nodes with it."""
SCC = "securitycontextconstraints.security.openshift.io"
ROLLED_OUT_SECONDS = 60

STARTS = {
    "nvidia-runtime": "the default runtime",
    "cdi": "the driver below /usr of the node",
    "bottlerocket": "volume mounts that the default runtime replaces",
}
"""Platforms whose agents start without the driver, and where they look for it."""
WAITS = {
    "driver-container": "/run/nvidia/driver",
    "gke": "/home/kubernetes/bin/nvidia/lib64",
    "openshift": "/run/nvidia/driver",
}
"""Platforms whose agents wait for a directory of the node."""


@pytest.fixture(scope="module", autouse=True)
def gpu_nodes(fleet: Fleet) -> Iterator[None]:
    """Labels the nodes as nodes with a GPU, and installs the tests' values again at the end."""
    for node in fleet.nodes:
        fleet.api.patch(f"{NODES}/{node}", {"metadata": {"labels": {PRESENT: "true"}}})
    yield
    fleet.install()
    for node in fleet.nodes:
        fleet.api.patch(f"{NODES}/{node}", {"metadata": {"labels": {PRESENT: None}}})


@pytest.fixture
def constraints(fleet: Fleet) -> Iterator[None]:
    """The kind that OpenShift has for its constraints, without their fields and effects."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": "SecurityContextConstraints", "plural": SCC.partition(".")[0], "singular": "scc"}
    spec = {"group": SCC.partition(".")[2], "scope": "Cluster", "names": names, "versions": [version]}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": SCC}}
    fleet.api.create(CRDS, {**head, "spec": spec})
    eventually(lambda: fleet.api.check_established(SCC), within=20)
    yield
    fleet.install()  # helm deletes its object before the kind
    fleet.api.delete(f"{CRDS}/{SCC}")


def apply(fleet: Fleet, platform: str) -> None:
    """Installs the chart with a platform and without the driver of the tests."""
    install(fleet.cluster, agent={"driver": {}}, values={"platform": platform}, wait=False)


def problems(fleet: Fleet) -> dict[tuple[str, str], JsonObject]:
    found = CommandLine(fleet.cluster).run("doctor", "-o", "json").json["problems"]
    return {(one["check"], one["object"]): one for one in found}


def new_agents(fleet: Fleet, phase: str) -> list[JsonObject]:
    """Returns the agents' pods once all are of the present DaemonSet and in this phase."""
    rollout = fleet.api.get(AGENTS)
    status = rollout["status"]
    assert status["observedGeneration"] == rollout["metadata"]["generation"]
    assert status.get("updatedNumberScheduled") == len(fleet.nodes), status
    found = [fleet.agent_pod(node) for node in fleet.nodes]
    assert {pod["status"]["phase"] for pod in found} == {phase}, [pod["status"] for pod in found]
    return found


def no_driver(fleet: Fleet, where: str) -> None:
    found = problems(fleet)
    assert set(found) == {("NoDriver", f"node/{node}") for node in fleet.nodes}, found
    for one in found.values():
        assert one["cause"].endswith(f"; the agent uses {where}")
        assert "platforms.md" in one["cure"]


@pytest.mark.parametrize("platform", STARTS)
def test_agent_starts_and_reports_that_the_driver_is_missing(fleet: Fleet, platform: str) -> None:
    apply(fleet, platform)
    eventually(partial(new_agents, fleet, "Running"), within=ROLLED_OUT_SECONDS)
    eventually(partial(no_driver, fleet, STARTS[platform]), within=ROLLED_OUT_SECONDS, every=2)
    for node in fleet.nodes:
        assert fleet.telemetry(node)["status"]["summary"]["state"] == "NoDriver"


def waits(fleet: Fleet, directory: str) -> None:
    """The kubelet may tell of the failed mount before the pod has the status of its containers."""
    found = problems(fleet)
    for node in fleet.nodes:
        one = found.get(("AgentNotReady", f"node/{node}"))
        assert one is not None, found
        assert "ContainerCreating" in one["cause"], one
        assert "kubectl describe pod" in one["cure"]
        assert "of the node)" in one["cure"]
        assert directory in one["cure"]


def missing(fleet: Fleet, directory: str) -> None:
    """The events of the pods name the directory."""
    for pod in new_agents(fleet, "Pending"):
        found = fleet.api.list(events(NAMESPACE), fieldSelector=f"involvedObject.uid={pod['metadata']['uid']}")
        messages = [one["message"] for one in found if one["reason"] == "FailedMount"]
        assert any(f"hostPath type check failed: {directory}" in one for one in messages), messages


@pytest.mark.parametrize("platform", [name for name in WAITS if name != "openshift"])
def test_agent_waits_for_the_directory_of_the_driver(fleet: Fleet, platform: str) -> None:
    apply(fleet, platform)
    eventually(partial(missing, fleet, WAITS[platform]), within=ROLLED_OUT_SECONDS, every=1)
    eventually(partial(waits, fleet, WAITS[platform]), within=ROLLED_OUT_SECONDS, every=2)


def test_openshift_needs_its_constraints(fleet: Fleet) -> None:
    with pytest.raises(ClusterError, match="SecurityContextConstraints"):
        apply(fleet, "openshift")


@pytest.mark.usefixtures("constraints")
def test_openshift_waits_for_the_directory_of_the_driver(fleet: Fleet) -> None:
    apply(fleet, "openshift")
    eventually(partial(missing, fleet, WAITS["openshift"]), within=ROLLED_OUT_SECONDS, every=1)
    eventually(partial(waits, fleet, WAITS["openshift"]), within=ROLLED_OUT_SECONDS, every=2)
    plural, _, group = SCC.partition(".")
    stored = fleet.api.list(f"/apis/{group}/v1/{plural}")
    assert [one["users"] for one in stored] == [[f"system:serviceaccount:{NAMESPACE}:gpufleet-agent"]]
