from typing import Any

import pytest

from gpufleet_agent.kube.model import ObjectFormatError
from gpufleet_agent.kube.resource_claims import AllocatedDevice, ConsumerPod, parse_claim

METADATA = {"namespace": "ml", "name": "c", "uid": "u"}


def result(driver: str, pool: str, **fields: object) -> dict[str, Any]:
    return {"request": "gpu/first", "driver": driver, "pool": pool, "device": "gpu-1", **fields}


def test_claim_has_the_results_of_its_driver_and_pool() -> None:
    document = {
        "metadata": METADATA,
        "status": {
            "allocation": {
                "devices": {
                    "results": [
                        result("d", "node-1", shareID="s", consumedCapacity={"memory": "10Gi"}),
                        result("d", "node-2"),
                        result("other", "node-1"),
                    ]
                }
            },
            "reservedFor": [
                {"resource": "pods", "name": "p", "uid": "pu"},
                {"apiGroup": "batch", "resource": "jobs", "name": "j", "uid": "ju"},
            ],
        },
    }
    claim = parse_claim(document, "d", "node-1")
    assert claim.devices == (AllocatedDevice("gpu", "gpu-1", "s", 10240),)
    assert claim.pods == (ConsumerPod("p", "pu"),)
    assert str(claim) == "ml/c"


def test_claim_that_is_not_allocated_has_no_devices() -> None:
    assert parse_claim({"metadata": METADATA}, "d", "node-1").devices == ()


@pytest.mark.parametrize(
    "document", [{}, {"metadata": METADATA, "status": {"allocation": {"devices": {"results": [{}]}}}}, {"metadata": 1}]
)
def test_malformed_claim_is_an_error(document: dict[str, Any]) -> None:
    with pytest.raises(ObjectFormatError, match="ResourceClaim: "):
        parse_claim(document, "d", "node-1")
