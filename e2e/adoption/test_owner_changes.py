"""What the controllers of Kubernetes do to the pods that they own: suspend, replace, scale and delete them."""

import pytest

from gpufleet_e2e.kubernetes_features import MUTATING_POLICIES
from gpufleet_e2e.support.api import apps, batch, pods
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import adopting, deployment, job, stateful_set
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import FREE_SECONDS, TestNamespace

SECONDS = 40

pytestmark = [pytest.mark.usefixtures("transport"), pytest.mark.kubernetes(MUTATING_POLICIES)]


def test_suspended_job_frees_its_devices_and_gets_some_again(namespace: TestNamespace, fleet: Fleet) -> None:
    """The Job counts no failure, and its new pods have the same replica indices."""
    namespace.apply(adopting("train", count=2, replicas=2))
    path = f"{batch(namespace.name)}/train"
    idle = "trap 'exit 0' TERM; sleep 1000000 & wait"
    fleet.api.create(batch(namespace.name), job("train", 2, idle, completionMode="Indexed"))
    eventually(lambda: namespace.check_placed(train=2), within=SECONDS)
    before = {replica.pod_uid for replica in namespace.verify("train")["train"].replicas}
    fleet.api.patch(path, {"spec": {"suspend": True}})
    namespace.wait_condition("train", "Ready", "True", "NoPods", within=SECONDS)
    eventually(lambda: _check_reserved(namespace, 0), within=FREE_SECONDS)
    fleet.api.patch(path, {"spec": {"suspend": False}})
    eventually(lambda: namespace.check_placed(train=2), within=SECONDS)
    after = namespace.verify("train")["train"].replicas
    assert not before & {replica.pod_uid for replica in after}
    for index, replica in enumerate(after):
        assert replica.pod.startswith(f"train-{index}-"), "the completion index is not the replica"
    status = fleet.api.get(path)["status"]
    assert status.get("failed", 0) == 0, f"the Job counted a failure: {status}"
    fleet.api.delete(path)


def test_stateful_set_is_scaled_and_its_pod_comes_back_by_name(namespace: TestNamespace, fleet: Fleet) -> None:
    """The new pod has another uid, and a reservation of its own."""
    namespace.apply(adopting("db"))
    path = f"{apps(namespace.name, 'statefulsets')}/db"
    fleet.api.create(apps(namespace.name, "statefulsets"), stateful_set("db", 1))
    eventually(lambda: namespace.check_placed(db=1), within=SECONDS)
    (before,) = namespace.verify("db")["db"].replicas
    fleet.api.delete(f"{pods(namespace.name)}/{before.pod}")
    eventually(lambda: _check_replaced(namespace, before.pod_uid), within=SECONDS)
    fleet.api.patch(path, {"spec": {"replicas": 3}})
    eventually(lambda: namespace.check_placed(db=3), within=SECONDS)
    found = namespace.verify("db")["db"].replicas
    assert [replica.pod for replica in found] == ["db-0", "db-1", "db-2"]
    fleet.api.patch(path, {"spec": {"replicas": 1}})
    eventually(lambda: _check_reserved(namespace, 1), within=FREE_SECONDS)
    assert [replica.pod for replica in namespace.verify("db")["db"].replicas] == ["db-0"]
    fleet.api.delete(path)


def test_owner_that_is_deleted_while_its_pods_are_gated_leaves_nothing(namespace: TestNamespace, fleet: Fleet) -> None:
    namespace.apply(adopting("web", replicas=3))
    path = f"{apps(namespace.name, 'deployments')}/web"
    fleet.api.create(apps(namespace.name, "deployments"), deployment("web", 2))
    message = namespace.wait_condition("web", "Reconciling", "True", "WaitingForPods")
    assert message == "2 of 3 pods of the gang exist"
    fleet.api.delete(path)
    namespace.wait_condition("web", "Ready", "True", "NoPods", within=SECONDS)
    assert not namespace.all_pods("web")
    _check_reserved(namespace, 0)


def _check_reserved(namespace: TestNamespace, number: int) -> None:
    found = namespace.fleet.assignments(namespace.name)
    assert len(found) == number, f"reservations: {sorted(one['pod'] for one in found.values())}"


def _check_replaced(namespace: TestNamespace, uid: str) -> None:
    found = [pod["metadata"]["uid"] for pod in namespace.all_pods("db")]
    assert uid not in found, "the pod of before exists"
    namespace.check_placed(db=1)
