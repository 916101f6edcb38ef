from typing import Any

import pytest

from gpufleet_api.base import ContainerDevices
from gpufleet_api.names import Reclaim
from gpufleet_operator.pods.claims.claim_body import claim_body
from gpufleet_testing.operator import make
from gpufleet_testing.operator.dra import claims

D = "gpu.gpufleet.dev"


def test_claim_requests_exactly_the_reserved_devices() -> None:
    pod = claims.claiming(make.pod(replica=2))
    body = claim_body(make.workload(), pod, claims.assignment(pod, "GPU-1-1", "GPU-1-0"))
    requests = body["spec"]["devices"]["requests"]
    assert [one["exactly"]["selectors"][0]["cel"]["expression"] for one in requests] == [
        f'device.driver == "{D}" && device.attributes["{D}"].uuid == "GPU-1-1"',
        f'device.driver == "{D}" && device.attributes["{D}"].uuid == "GPU-1-0"',
    ]
    assert [(one["name"], one["exactly"]["count"]) for one in requests] == [("gpu-0", 1), ("gpu-1", 1)]
    assert requests[0]["exactly"]["tolerations"] == [
        {"key": "gpufleet.dev/managed", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert not any("capacity" in one["exactly"] for one in requests)


def test_claim_belongs_to_its_pod() -> None:
    pod = claims.claiming(make.pod())
    meta = claim_body(make.workload(), pod, claims.assignment(pod))["metadata"]
    assert (meta["namespace"], meta["name"]) == ("ml", pod.name)
    assert meta["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid, "controller": True}
    ]
    assert meta["labels"]["gpufleet.dev/workload"] == "train"


def test_share_requests_its_memory() -> None:
    pod = claims.claiming(make.pod())
    body = claim_body(make.workload(), pod, claims.assignment(pod, memory_mib=1500))
    (request,) = body["spec"]["devices"]["requests"]
    assert request["exactly"]["capacity"] == {"requests": {"memory": "1500Mi"}}
    assert "constraints" not in body["spec"]["devices"]


@pytest.mark.parametrize(
    ("driver", "changes", "expected"),
    [
        pytest.param(D, {"demand_mib": 900, "demand_runs": 5}, "900Mi", id="learned"),
        pytest.param(D, {"demand_mib": 1800, "demand_runs": 5}, "1800Mi", id="more than promised"),
        pytest.param(D, {"reclaim": Reclaim.USED}, "1Mi", id="others get what it does not use"),
        pytest.param("gpu.nvidia.com", {"demand_mib": 900, "reclaim": Reclaim.USED}, "1500Mi", id="another driver"),
    ],
)
def test_share_requests_what_is_kept_for_it(driver: str, changes: dict[str, Any], expected: str) -> None:
    pod = claims.claiming(make.pod())
    reserved = claims.assignment(pod, memory_mib=1500).model_copy(update={"resource": driver, **changes})
    (request,) = claim_body(make.workload(), pod, reserved)["spec"]["devices"]["requests"]
    assert request["exactly"]["capacity"] == {"requests": {"memory": expected}}


def test_shares_of_several_devices_in_one_request_are_on_different_devices() -> None:
    pod = claims.claiming(make.pod(), "main", "side")
    parts = [ContainerDevices(name="main", count=2), ContainerDevices(name="side", count=1)]
    reserved = claims.assignment(pod, "GPU-1-0", "GPU-1-1", "GPU-1-2", memory_mib=1500)
    devices = claim_body(make.workload(), pod, reserved.model_copy(update={"containers": parts}))["spec"]["devices"]
    assert devices["constraints"] == [{"requests": ["main"], "distinctAttribute": f"{D}/uuid"}]
    assert devices["requests"][0]["exactly"]["selectors"][0]["cel"]["expression"].endswith(
        '.uuid in ["GPU-1-0", "GPU-1-1"]'
    )


def test_claim_of_another_driver_has_its_class_and_no_toleration() -> None:
    pod, driver = claims.claiming(make.pod()), "gpu.nvidia.com"
    reserved = claims.assignment(pod, "GPU-1-0").model_copy(update={"resource": driver})
    (request,) = claim_body(make.workload(), pod, reserved)["spec"]["devices"]["requests"]
    assert request["exactly"] == {
        "deviceClassName": driver,
        "allocationMode": "ExactCount",
        "count": 1,
        "selectors": [
            {"cel": {"expression": f'device.driver == "{driver}" && device.attributes["{driver}"].uuid == "GPU-1-0"'}}
        ],
    }
