"""ResourceClaims and pods that refer to them."""

import pytest

from gpufleet_api.base import ContainerDevices
from gpufleet_operator.cache.decode_claim import claim_reference, resource_claim
from gpufleet_operator.model.claims.resource_claim import ClaimReference, DeviceAllocation
from gpufleet_operator.pods.claims.claim_body import claim_requests
from gpufleet_testing.operator import make
from gpufleet_testing.operator.dra import claims


@pytest.mark.parametrize("memory", [None, 10240, 1500])
def test_stored_claim_has_the_requests_of_its_reservation(memory: int | None) -> None:
    """The apiserver writes 10240Mi as 10Gi."""
    pod = claims.claiming(make.pod())
    reserved = claims.assignment(pod, "GPU-1-0", "GPU-1-1", memory_mib=memory)
    found = resource_claim(claims.stored_claim(make.workload(), pod, reserved))
    assert found.requests == claim_requests(reserved)
    assert (found.pod_uid, found.name, found.deleting, found.allocated) == (pod.uid, pod.name, False, None)


def test_claim_of_several_containers_has_the_requests_of_its_reservation() -> None:
    pod = claims.claiming(make.pod(), "main", "side")
    parts = [ContainerDevices(name="main", count=2), ContainerDevices(name="side", count=1)]
    reserved = claims.assignment(pod, "GPU-1-2", "GPU-1-0", "GPU-1-1").model_copy(update={"containers": parts})
    found = resource_claim(claims.stored_claim(make.workload(), pod, reserved))
    assert found.requests == claim_requests(reserved)
    assert [(one.name, one.count) for one in found.requests] == [("main", 2), ("side", 1)]


def test_allocation_and_deletion_are_decoded() -> None:
    results = [{"request": "gpu-0", "driver": "gpu.gpufleet.dev", "pool": "node-1", "device": "gpu-1-0"}]
    body = {
        "metadata": {"uid": "u", "namespace": "ml", "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"allocation": {"devices": {"results": results}}},
    }
    found = resource_claim(body)
    assert found.allocated == (DeviceAllocation("gpu.gpufleet.dev", "node-1", "gpu-1-0"),)
    assert found.deleting


@pytest.mark.parametrize("spec", [{}, {"devices": 3}, {"devices": {"requests": "x"}}, None])
def test_malformed_spec_has_no_requests(spec: object) -> None:
    body = {"metadata": {"uid": "u", "namespace": "ml", "name": "n", "ownerReferences": "x"}, "spec": spec}
    assert resource_claim(body).requests == ()


def test_pod_names_its_claim_and_the_containers_that_use_it() -> None:
    """An init container that ends before the others start has their devices, and is not one of them."""
    uses = {"resources": {"claims": [{"name": "gpufleet", "request": "main"}]}}
    spec = {
        "resourceClaims": [{"name": "other", "resourceClaimName": "o"}, {"name": "gpufleet", "resourceClaimName": "c"}],
        "initContainers": [{"name": "prepare", **uses}, {"name": "side", "restartPolicy": "Always", **uses}],
        "containers": [{"name": "plain"}, {"name": "main", **uses}],
    }
    assert claim_reference(spec) == ClaimReference("c", ("side", "main"))
    assert claim_reference({"containers": [{"name": "main"}]}) is None
    from_template = {"resourceClaims": [{"name": "gpufleet", "resourceClaimTemplateName": "t"}]}
    assert claim_reference(from_template) == ClaimReference("", (), "t")
