"""A namespace is deleted under running workloads: nothing is left behind."""

from gpufleet_e2e.support.api import NAMESPACES
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import FREE_SECONDS, GONE_SECONDS, TestNamespace


def test_namespace_deleted_under_running_workloads_leaves_nothing(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: there are no finalizers; writes that a terminating namespace rejects are paused."""
    namespace.apply(
        gpuworkload("runs", count=2, replicas=2),
        gpuworkload("gang", count=4, replicas=2, placement={"gang": True}),
        gpuworkload("waits", count=16, replicas=3),
    )
    namespace.verify("runs", "gang")

    fleet.api.delete(f"{NAMESPACES}/{namespace.name}")

    eventually(lambda: fleet.api.check_gone(f"{NAMESPACES}/{namespace.name}"), within=GONE_SECONDS)
    eventually(lambda: _nothing_is_reserved(namespace, fleet), within=FREE_SECONDS)


def _nothing_is_reserved(namespace: TestNamespace, fleet: Fleet) -> None:
    found = fleet.assignments(namespace.name)
    assert not found, f"reservations: {list(found.values())}"
