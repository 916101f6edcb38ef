"""ResourceQuota, LimitRange and PodSecurity: gangs hold no quota that others could use, and rejections are reasons."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import NAMESPACES, JsonObject
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually, never
from gpufleet_e2e.support.sandbox import TestNamespace

GANG = {"gang": True}
REQUESTS = "requests.gpufleet.dev/gpu"


def test_second_gang_waits_without_pods_and_runs_next(namespace: TestNamespace) -> None:
    """Mechanism: the pods of a gang are checked against the quota before the first one is created.

    The oldest gang of the namespace is tried first, as soon as a pod of another workload is gone.
    """
    _quota(namespace, {REQUESTS: "4"})
    first, second, third = (gpuworkload(n, replicas=4, placement=GANG) for n in ("first", "second", "third"))
    namespace.apply(first)
    namespace.verify("first")
    namespace.apply(second)
    message = namespace.wait_condition("second", "Ready", "False", "QuotaExceeded")
    print(message)
    assert "exceeded quota: gpus, requested: requests.gpufleet.dev/gpu=" in message
    assert not objects.is_true(namespace.workload("second"), "Stalled")
    namespace.apply(third)
    namespace.wait_condition("third", "Ready", "False", "QuotaExceeded")
    never(lambda: _no_pods(namespace, "second", "third"), for_seconds=3)
    namespace.delete("first")
    namespace.verify("second")
    _no_pods(namespace, "third")


def test_gangs_do_not_divide_a_quota_that_is_raised(namespace: TestNamespace) -> None:
    """Mechanism: as above. The older gang is in its backoff when the younger one is applied with the larger quota."""
    _quota(namespace, {REQUESTS: "2"})
    namespace.apply(gpuworkload("older", replicas=4, placement=GANG))
    namespace.wait_condition("older", "Ready", "False", "QuotaExceeded")
    _no_pods(namespace, "older")
    path = f"{NAMESPACES}/{namespace.name}/resourcequotas/gpus"
    namespace.fleet.api.patch(path, {"spec": {"hard": {REQUESTS: "4"}}})
    namespace.apply(gpuworkload("younger", replicas=4, placement=GANG))
    namespace.verify("older")
    message = namespace.wait_condition("younger", "Ready", "False", "QuotaExceeded")
    assert "exceeded quota: gpus, requested: requests.gpufleet.dev/gpu=" in message
    _no_pods(namespace, "younger")


def test_gang_over_the_quota_leaves_it_to_others(namespace: TestNamespace) -> None:
    """Mechanism: as above. The gang never fits; a single replica that comes later runs at once."""
    _quota(namespace, {REQUESTS: "3"})
    namespace.apply(gpuworkload("gang", replicas=4, placement=GANG))
    message = namespace.wait_condition("gang", "Ready", "False", "QuotaExceeded")
    assert message == (
        "waiting for quota: 4 pods are forbidden: exceeded quota: gpus, requested: requests.gpufleet.dev/gpu=4, "
        "used: requests.gpufleet.dev/gpu=0, limited: requests.gpufleet.dev/gpu=3"
    )
    namespace.apply(gpuworkload("single"))
    namespace.verify("single")
    _no_pods(namespace, "gang")


def test_gang_is_taken_back_when_the_quota_rejects_its_last_pod(namespace: TestNamespace) -> None:
    """Mechanism: a quota with scopes is known only from rejections. The pods that were created are deleted again."""
    _quota(namespace, {"pods": "3"}, scopes=["NotTerminating"])
    namespace.apply(gpuworkload("gang", replicas=4, placement=GANG))
    namespace.wait_condition("gang", "Ready", "False", "QuotaExceeded")
    assert "exceeded quota: gpus" in namespace.event("gang", "IncompleteGang")
    eventually(lambda: _no_pods(namespace, "gang"), within=30)
    namespace.apply(gpuworkload("single"))
    namespace.verify("single", within=60)


def test_limit_range_counts_before_a_pod_of_a_gang_exists(namespace: TestNamespace) -> None:
    """Mechanism: a dry run of the creation returns the pod with the defaults of the namespace's LimitRange."""
    limits = [{"type": "Container", "default": {"cpu": "300m"}, "defaultRequest": {"cpu": "300m"}}]
    _create(namespace, "LimitRange", {"limits": limits}, "defaults")
    _quota(namespace, {"requests.cpu": "1"})
    namespace.apply(gpuworkload("gang", replicas=4, placement=GANG))
    message = namespace.wait_condition("gang", "Ready", "False", "QuotaExceeded")
    assert "requested: requests.cpu=1200m, used: requests.cpu=0, limited: requests.cpu=1" in message
    _no_pods(namespace, "gang")


def test_pod_security_is_a_reason_of_its_own(namespace: TestNamespace) -> None:
    """Mechanism: the apiserver's message is quoted, before a pod of the gang exists."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace.fleet.api.patch(f"{NAMESPACES}/{namespace.name}", {"metadata": {"labels": labels}})
    namespace.apply(gpuworkload("gang", replicas=2, placement=GANG), gpuworkload("single"))
    for name in ("gang", "single"):
        message = namespace.wait_condition(name, "Stalled", "True", "PodSecurityViolation")
        assert 'violates PodSecurity "restricted:latest"' in message
        _no_pods(namespace, name)


def _quota(namespace: TestNamespace, hard: dict[str, str], **spec: object) -> None:
    """Creates a ResourceQuota, and waits until it is in force."""
    api, name = namespace.fleet.api, "gpus"
    _create(namespace, "ResourceQuota", {"hard": hard, **spec}, name)

    def counted() -> None:
        found = api.get(f"{NAMESPACES}/{namespace.name}/resourcequotas/{name}")
        assert found.get("status", {}).get("used", {}).keys() == hard.keys(), "the quota has no status"

    eventually(counted, within=15)


def _create(namespace: TestNamespace, kind: str, spec: JsonObject, name: str) -> None:
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    namespace.fleet.api.create(f"{NAMESPACES}/{namespace.name}/{kind.lower()}s", body)


def _no_pods(namespace: TestNamespace, *names: str) -> None:
    for name in names:
        found = namespace.all_pods(name)
        assert not found, f"{name} has {len(found)} pods"
