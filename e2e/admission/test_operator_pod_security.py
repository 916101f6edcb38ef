"""The operator's pod against the apiserver's pod security check."""

from gpufleet_e2e.identities import NAMESPACE, Accounts, Client, assert_allowed, wait_until
from gpufleet_e2e.support.chart import Chart
from gpufleet_testbed import Cluster


def test_operator_meets_the_restricted_level(cluster: Cluster, admin: Client, accounts: Accounts) -> None:
    path, key = f"/api/v1/namespaces/{NAMESPACE}", "pod-security.kubernetes.io/enforce"
    spec = {**Chart(cluster).operator()["spec"], "serviceAccountName": "user"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}
    loose = {**pod, "spec": {**spec, "securityContext": {**spec["securityContext"], "runAsNonRoot": False}}}

    def rejected() -> bool:
        return "violates PodSecurity" in admin.create(f"{path}/pods", loose).message

    assert_allowed(admin.patch(path, {"metadata": {"labels": {key: "restricted"}}}, dry_run=None))
    try:
        wait_until(rejected, "the level is in force")
        assert_allowed(admin.create(f"{path}/pods", pod))
    finally:
        assert_allowed(admin.patch(path, {"metadata": {"labels": {key: None}}}, dry_run=None))
        # Pods of other tests in this namespace do not meet it, and admission reads labels a moment later.
        wait_until(lambda: not rejected(), "the level is no longer in force")
