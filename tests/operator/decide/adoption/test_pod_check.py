"""What is said about a pod whose requests differ from those of its workload."""

from typing import Any

import pytest

from gpufleet_api.names import RESOURCE, SHARED_RESOURCE
from gpufleet_operator.decide.adoption.pod_check import pod_errors
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.pod_state.owner import DeviceRequest
from gpufleet_operator.model.state_types import Limits
from gpufleet_testing.operator import make, owned


def asks(container: str, count: int, *, resource: str = RESOURCE, init: bool = False, number: int = 0) -> DeviceRequest:
    return DeviceRequest(container, f"spec.containers[{number}]", ((resource, count),), init)


def errors(pod: Pod, **devices: object) -> list[str]:
    workload = owned.workload(devices=devices or {"count": 1})
    return list(pod_errors(workload, make.spec(workload), pod, Limits()))


def test_pod_that_asks_for_the_devices_of_the_workload_is_valid() -> None:
    assert errors(owned.pod()) == []
    assert errors(owned.pod(device_requests=(asks("b", 2),)), count=2, container="b") == []


def test_several_named_containers_are_valid() -> None:
    both = (asks("a", 1), asks("b", 2, number=1))
    names = [{"name": "a", "count": 1}, {"name": "b", "count": 2}]

    assert errors(owned.pod(device_requests=both), count=3, containers=names) == []


CASES = {
    "no request": ((), {"count": 2}, "Required value: must be 2, in the container that uses the GPUs"),
    "another count": ((asks("a", 1),), {"count": 2}, "Invalid value: 1: must be 2: spec.devices.count of GPUWorkload"),
    "several containers": ((asks("a", 1), asks("b", 1)), {"count": 1}, "name them in spec.devices.containers"),
    "another container": (
        (asks("a", 1),),
        {"count": 1, "container": "b"},
        "spec.containers[name=b].resources.limits[gpufleet.dev/gpu]: Required value: must be 1",
    ),
    "one container too many": (
        (asks("a", 1), asks("b", 1)),
        {"count": 1, "container": "b"},
        "must be omitted: spec.devices of GPUWorkload train names b",
    ),
    "another count of a container": (
        (asks("a", 2), asks("b", 1)),
        {"count": 2, "containers": [{"name": "a"}, {"name": "b"}]},
        "Invalid value: 2: must be 1: spec.devices of GPUWorkload train",
    ),
    "another mode": (
        (asks("a", 1, resource=SHARED_RESOURCE),),
        {"count": 1},
        "must be omitted: spec.devices.mode of GPUWorkload train is Exclusive, whose resource is gpufleet.dev/gpu",
    ),
    "init container": ((asks("a", 1, init=True),), {"count": 1}, "must be in an app container or in a sidecar"),
}


@pytest.mark.parametrize(("requests", "devices", "message"), CASES.values(), ids=CASES)
def test_other_requests_are_errors(requests: tuple[DeviceRequest, ...], devices: dict[str, Any], message: str) -> None:
    assert message in "; ".join(errors(owned.pod(device_requests=requests), **devices))


def test_unknown_scheduler_is_an_error() -> None:
    (error,) = errors(owned.pod(scheduler="volcano"))

    assert error.startswith('spec.schedulerName: Unsupported value: "volcano": supported values: default-scheduler')
