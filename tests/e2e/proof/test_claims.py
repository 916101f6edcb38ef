"""Devices of ResourceClaims: the claim's allocation and the kubelet's list name the same ones."""

from typing import Any

from gpufleet_e2e.proof.claims import ClaimEvidence, raw_device
from gpufleet_e2e.proof.evidence import Holding

DRIVER = "gpu.gpufleet.dev"
POD: dict[str, Any] = {
    "metadata": {"namespace": "ml", "name": "train-0", "uid": "pod-uid"},
    "spec": {"resourceClaims": [{"name": "gpufleet", "resourceClaimName": "train-0"}]},
    "status": {},
}


def slice_of(node: str, **capacity: object) -> dict[str, Any]:
    device = {"name": "gpu-a", "attributes": {"uuid": {"string": "GPU-A"}}, "capacity": capacity}
    return {"spec": {"driver": DRIVER, "pool": {"name": node}, "devices": [device]}}


def claim(*, reserved_for: str = "pod-uid", share: str = "s1", used: str = "80Gi") -> dict[str, Any]:
    result: dict[str, Any] = {"driver": DRIVER, "pool": "node-1", "device": "gpu-a", "shareID": share}
    result["consumedCapacity"] = {"memory": used}
    other = {"driver": "other.example.com", "pool": "node-1", "device": "nic"}
    return {
        "metadata": {"namespace": "ml", "name": "train-0"},
        "status": {
            "reservedFor": [{"uid": reserved_for}],
            "allocation": {"devices": {"results": [result, other]}},
        },
    }


WHOLE = slice_of("node-1", memory={"value": "81920Mi"})


def test_claim_of_a_pod_names_the_uuids_of_its_devices() -> None:
    found = ClaimEvidence([WHOLE], [claim()]).of_pod(POD)
    assert found is not None
    assert found.devices == ("GPU-A",)


def test_pod_without_a_claim_has_no_such_source() -> None:
    assert ClaimEvidence([WHOLE], [claim()]).of_pod({**POD, "spec": {}}) is None


def test_missing_claim_and_one_of_another_pod_are_problems() -> None:
    for claims, problem in ([], "does not exist"), ([claim(reserved_for="other")], "is not reserved for the pod"):
        found = ClaimEvidence([WHOLE], claims).of_pod(POD)
        assert found is not None
        assert found.devices is None
        assert problem in found.problem


def test_claim_of_a_template_is_found_by_the_status_of_its_pod() -> None:
    spec = {"resourceClaims": [{"name": "gpufleet", "resourceClaimTemplateName": "t"}]}
    made = {"resourceClaimStatuses": [{"name": "gpufleet", "resourceClaimName": "train-0"}]}
    found = ClaimEvidence([WHOLE], [claim()]).of_pod({**POD, "spec": spec, "status": made})
    assert found is not None
    assert found.devices == ("GPU-A",)


def holding(share: str) -> Holding:
    return Holding("node-1", "ml", "train-0", "main", DRIVER, (raw_device("node-1", "gpu-a", share),))


def test_kubelets_device_is_a_share_if_the_claim_has_a_part_of_its_memory() -> None:
    evidence = ClaimEvidence([WHOLE], [claim(share="s1"), claim(share="s2", used="10Gi")])
    assert evidence.resolve(holding("s1")).devices == ("GPU-A",)
    assert evidence.resolve(holding("s2")).devices == ("GPU-A::s2",)
    assert evidence.resolve(holding("")).devices == ("GPU-A",)


def test_holding_of_a_resource_stays_as_it_is() -> None:
    found = Holding("node-1", "ml", "p", "main", "gpufleet.dev/gpu", ("GPU-A",))
    assert ClaimEvidence([WHOLE], []).resolve(found) is found
