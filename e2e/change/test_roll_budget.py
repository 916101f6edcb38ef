"""How many replicas a changed template replaces at a time: a gang at once, others within `maxUnavailable`."""

from gpufleet_e2e.proof import objects
from gpufleet_e2e.support.api import workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.manifests import container, gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace

ROLL_SECONDS = 60


def test_gang_rolls_at_once_and_others_by_percent(namespace: TestNamespace, fleet: Fleet) -> None:
    """Mechanism: replicas that depend on each other roll together; a percentage of four replicas is rounded up to two.

    A roll is no restart: the attempt stays 0, and the devices stay with their replica.
    """
    first, second = fleet.nodes
    half = {"type": "RollingUpdate", "maxUnavailable": "40%"}
    gang = {"gang": True, "strategy": "Spread"}
    serve = gpuworkload("serve", replicas=4, uuids=fleet.gpus[second].uuids[:4], updateStrategy=half)
    namespace.apply(serve, gpuworkload("gang", replicas=2, placement=gang, uuids=fleet.gpus[first].uuids[:2]))
    before = _places(namespace)
    for name in ("serve", "gang"):
        changed = container(env=[{"name": "COLOR", "value": "green"}])
        patch = {"spec": {"template": {"spec": {"containers": [changed]}}}}
        fleet.api.patch(f"{workloads(namespace.name)}/{name}", patch)
    available: list[int] = []
    mixed: list[set[str]] = []

    def updated() -> None:
        available.append(sum(objects.is_true(pod, "Ready") for pod in namespace.pods("serve")))
        ready = (pod for pod in namespace.pods("gang") if objects.is_true(pod, "Ready"))
        mixed.append({pod["metadata"]["labels"]["gpufleet.dev/template-hash"] for pod in ready})
        for name, replicas in (("serve", 4), ("gang", 2)):
            found = namespace.workload(name)
            assert found["status"]["observedGeneration"] == found["metadata"]["generation"], "not seen yet"
            counts = (found["status"]["updatedReplicas"], found["status"]["ready"])
            assert counts == (replicas, f"{replicas}/{replicas}"), namespace.describe(name)

    eventually(updated, within=ROLL_SECONDS)
    after = _places(namespace)
    assert min(available) == 2, f"available at a time: {available}"
    assert max(map(len, mixed)) == 1, "pods of both templates ran in the gang"
    assert {key: place for key, (_, place) in after.items()} == {key: place for key, (_, place) in before.items()}
    assert not {uid for uid, _ in after.values()} & {uid for uid, _ in before.values()}
    assert not [p for p in namespace.workload("gang")["status"]["placements"] if p.get("attempt")]


def _places(namespace: TestNamespace) -> dict[tuple[str, int], tuple[str, tuple[str, tuple[str, ...]]]]:
    """Returns pod uid, and node and devices, by workload and replica."""
    found = namespace.verify("serve", "gang")
    return {
        (name, one.replica): (one.pod_uid, (one.node, one.picked))
        for name, evidence in found.items()
        for one in evidence.replicas
    }
