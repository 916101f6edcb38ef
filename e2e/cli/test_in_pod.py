"""The image of the command line in a pod: it has no kubectl, and reads as the pod's ServiceAccount."""

import json
from collections.abc import Iterator

import pytest

from gpufleet_api.names import GROUP
from gpufleet_e2e.identities.accounts import binding
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.programs.in_pod import run_in_pod
from gpufleet_e2e.support.sandbox import TestNamespace


@pytest.fixture
def viewer(namespace: TestNamespace, fleet: Fleet) -> Iterator[None]:
    """Binds the cluster's role `view`, to which the chart adds, to the ServiceAccount of the namespace."""
    path, body = binding(namespace.name, "view", (namespace.name, "default"))
    fleet.api.create(path.rpartition("/")[0], body)
    yield
    fleet.api.delete(path)


def run(namespace: TestNamespace, name: str, *arguments: str) -> tuple[int, str]:
    return run_in_pod(namespace.fleet.api, namespace.name, name, *arguments)


@pytest.mark.usefixtures("viewer")
def test_viewer_sees_gpus_workloads_and_the_checks_that_it_may_make(namespace: TestNamespace, fleet: Fleet) -> None:
    namespace.apply(gpuworkload("train"))
    namespace.wait_ready("train")
    code, text = run(namespace, "top", "top")
    assert (code, text.count("NVIDIA")) == (0, sum(len(one.uuids) for one in fleet.gpus.values()))
    assert f"{namespace.name}/{namespace.pod('train')['metadata']['name']}" in text
    code, text = run(namespace, "status", "status")  # of the pod's namespace
    assert (code, text.splitlines()[0].startswith(f"{namespace.name}/train")) == (0, True), text
    assert namespace.reservation("train")["devices"][0] in text
    code, text = run(namespace, "doctor", "doctor", "-o", "json")
    (result,) = [line for line in text.splitlines() if line.startswith("{")]
    found = json.loads(result)
    assert (code, found["problems"]) == (0, [])
    assert {"operator", "clocks", "gated pods", "reservations"} <= set(found["passed"])
    skipped = {one["check"]: one["why"] for one in found["notChecked"]}
    assert 'cannot list resource "nodes"' in skipped["agents"]
    assert "note: not checked: agents, telemetry, driver, " in text


def test_pod_without_permission_is_told_what_is_missing(namespace: TestNamespace) -> None:
    for command in ("top", "status", "doctor"):
        code, text = run(namespace, command, command)
        assert code == 2
        (error,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert f'User "system:serviceaccount:{namespace.name}:default" cannot list resource' in error
        assert "ask an administrator" in error
        assert f'in API group "{GROUP}"' in error or command == "doctor"
