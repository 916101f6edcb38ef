import pytest

from gpufleet_operator.cache.cache import Cache
from gpufleet_operator.kube.clock import ServerClock
from gpufleet_operator.kube.errors import ConflictError
from gpufleet_operator.kube.events import ObjectEventRecorder
from gpufleet_operator.model.claims.claim_actions import CreateClaim, DeleteClaim
from gpufleet_operator.model.claims.resource_claim import ResourceClaim
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.pods.claims.claim_body import claim_body, claim_requests
from gpufleet_operator.runtime.claim_writer import ClaimWriter
from gpufleet_testing.operator import make
from gpufleet_testing.operator.cluster import FakeCluster
from gpufleet_testing.operator.dra import claims


def create(pod: Pod, *devices: str) -> CreateClaim:
    reserved = claims.assignment(pod, *devices)
    body = claim_body(make.workload(), pod, reserved)
    return CreateClaim("uid-train", pod.uid, pod.namespace, pod.name, claim_requests(reserved), body)


def delete(claim: ResourceClaim, reason: str = "") -> DeleteClaim:
    return DeleteClaim(
        workload_uid="uid-train",
        pod_uid=claim.pod_uid,
        namespace=claim.namespace,
        name=claim.name,
        uid=claim.uid,
        resource_version=claim.resource_version,
        workload="train",
        pod="train-0",
        reason=reason,
    )


def claim_writer(cluster: FakeCluster, cache: Cache) -> ClaimWriter:
    return ClaimWriter(cluster, cache, ServerClock(), ObjectEventRecorder(cluster, "me"))


async def test_created_claim_is_in_the_cache_until_it_is_deleted() -> None:
    cluster, cache, pod = FakeCluster(1, 1), Cache(), claims.claiming(make.pod())
    writer = claim_writer(cluster, cache)
    await writer.create(create(pod, "GPU-1-0"))
    await writer.create(create(pod, "GPU-1-0"))  # its response was lost
    found = cache.claims.by_pod[pod.namespace, pod.uid][pod.name]
    assert len(cluster.of("claims")) == 1
    await writer.delete(delete(found))
    assert cache.claims.by_pod[pod.namespace, pod.uid][pod.name].deleting
    await writer.delete(delete(found))
    assert cache.claims.by_pod == {}


async def test_existing_claim_of_other_devices_is_a_conflict() -> None:
    cluster, cache, pod = FakeCluster(1, 1), Cache(), claims.claiming(make.pod())
    writer = claim_writer(cluster, cache)
    await writer.create(create(pod, "GPU-1-0"))
    with pytest.raises(ConflictError, match="exists with other requests"):
        await writer.create(create(pod, "GPU-1-1"))


async def test_claim_that_was_allocated_meanwhile_is_not_deleted() -> None:
    cluster, cache, pod = FakeCluster(1, 1), Cache(), claims.claiming(make.pod())
    writer = claim_writer(cluster, cache)
    await writer.create(create(pod, "GPU-1-0"))
    found = cache.claims.by_pod[pod.namespace, pod.uid][pod.name]
    cluster.change("claims", f"ml/{pod.name}", allocation={"devices": {"results": []}})
    with pytest.raises(ConflictError):
        await writer.delete(delete(found))
    assert len(cluster.of("claims")) == 1


async def test_deletion_for_a_pod_that_gets_other_devices_is_an_event() -> None:
    cluster, cache, pod = FakeCluster(1, 1), Cache(), claims.claiming(make.pod())
    writer = claim_writer(cluster, cache)
    await writer.create(create(pod, "GPU-1-0"))
    await writer.delete(delete(cache.claims.by_pod[pod.namespace, pod.uid][pod.name], "GPU-1-0 became unhealthy"))
    assert cluster.events == ["Reassigned: pod train-0 gets other devices: GPU-1-0 became unhealthy"]
