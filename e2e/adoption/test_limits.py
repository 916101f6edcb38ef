"""Adopted pods with transport DevicePlugin: who gets a limit, and who is rejected without one."""

import pytest

from gpufleet_e2e.kubernetes_features import MUTATING_POLICIES
from gpufleet_e2e.support.api import JsonObject, batch, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import GATE, adopting, job, plain_pod, pod_spec
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

WORKLOAD = "gpufleet.dev/workload"

pytestmark = pytest.mark.kubernetes(MUTATING_POLICIES)


def test_labeled_pod_that_cannot_be_placed_is_rejected(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: policies of the chart. A misspelled label never runs without a reservation."""
    namespace.apply(adopting("train"))
    typo = fleet.api.try_create(pods(namespace.name), plain_pod("a", labels={WORKLOAD: "tarin"}))
    print(typo.message)
    assert not typo.allowed
    assert f"GPUWorkload tarin does not exist in namespace {namespace.name}" in typo.message
    several = plain_pod("b", labels={WORKLOAD: "train"})
    several["spec"] = pod_spec(*[{**pod_spec()["containers"][0], "name": name} for name in ("one", "two")])
    unclear = "no container requests GPUs: name the container in spec.devices of the GPUWorkload"
    eventually(lambda: _rejects(fleet, pods(namespace.name), several, unclear), within=30)
    by_hand = plain_pod("c", labels={WORKLOAD: "train"}, count=1, schedulingGates=[{"name": GATE}])
    fleet.api.create(pods(namespace.name), by_hand)
    eventually(lambda: namespace.check_placed(train=1), within=20)
    namespace.verify("train")
    fleet.api.delete(f"{pods(namespace.name)}/c")


def test_job_with_a_queue_has_the_limit_in_its_template(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: a policy on Jobs, because Kueue counts the template. The Job is suspended, as Kueue has it."""
    namespace.apply(adopting("queued", count=3))
    body = job("queued", 1, "exit 0", suspend=True)
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
    created = eventually(lambda: fleet.api.create(batch(namespace.name), body, dry_run=True), within=30)
    resources = created["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"gpufleet.dev/gpu": "3"}, "requests": {"gpufleet.dev/gpu": "3"}}
    body["spec"]["template"]["metadata"]["labels"][WORKLOAD] = "tarin"
    rejected = fleet.api.try_create(batch(namespace.name), body, dry_run=True)
    print(rejected.message)
    assert "Kueue counts the pod template, which requests no GPUs" in rejected.message


def _rejects(fleet: Fleet, path: str, body: JsonObject, reason: str) -> None:
    response = fleet.api.try_create(path, body, dry_run=True)
    assert not response.allowed
    assert reason in response.message
