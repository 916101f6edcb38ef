"""The allocation check of a running pod with a ResourceClaim."""

from dataclasses import replace

import pytest

from gpufleet_api.base import ContainerDevices
from gpufleet_api.names import DRA_DRIVER, Transport
from gpufleet_common.device_ids import device_name
from gpufleet_operator.ledger.verify import AllocationCheck, verify_allocation
from gpufleet_operator.model.claims.resource_claim import DeviceAllocation, ResourceClaim
from gpufleet_operator.model.objects import Reservation
from gpufleet_operator.model.pod_state.containers import Container
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_testing.operator import make
from gpufleet_testing.operator.dra import claims

ALL = ("GPU-1-0", "GPU-1-1")


def check(allocated_on: str | None, claimed: str = "GPU-1-0", *, limits: Limits | None = None) -> AllocationCheck:
    """Checks a pod with reserved device GPU-1-0, which the kubelet lists."""
    main = Container("main", running=True, ran=True, devices={DRA_DRIVER: frozenset({"GPU-1-0"})})
    pod = claims.claiming(make.running_pod(containers=(main,)))
    found: ResourceClaim = claims.claim(pod, claims.assignment(pod, claimed), allocated_on=allocated_on)
    reserved = claims.assignment(pod, "GPU-1-0")
    telemetry = claims.dra_telemetry("node-1", reserved)
    snapshot = make.snapshot(pod, telemetry, claims=claims.by_pod(found), limits=limits)
    return verify_allocation(snapshot, PassState(), pod, Reservation("node-1", reserved))


@pytest.mark.parametrize(
    ("allocated_on", "claimed", "state", "message"),
    [
        ("node-1", "GPU-1-0", "Allocated", ""),
        (None, "GPU-1-0", "Bound", "is not allocated"),
        ("node-1", "GPU-1-1", "Mismatch", "reserved GPU-1-0 on node-1, but ResourceClaim train-0-a has gpu-1-1 of"),
        ("node-2", "GPU-1-0", "Mismatch", "has gpu-1-0 of gpu.gpufleet.dev on node-2"),
    ],
)
def test_claim_must_have_the_reserved_devices(allocated_on: str | None, claimed: str, state: str, message: str) -> None:
    found = check(allocated_on, claimed)
    assert found.state == state
    assert message in found.message + found.missing


def test_claim_is_no_source_if_the_operator_does_not_watch_claims() -> None:
    assert check(None, limits=Limits(claims=False)).state == "Allocated"


@pytest.mark.parametrize(
    ("driver", "node", "reported", "state"),
    [
        ("gpu.nvidia.com", "node-1", True, "Allocated"),
        ("gpu.nvidia.com", "node-1", False, "Bound"),
        ("gpu.nvidia.com", "node-2", True, "Mismatch"),
        (DRA_DRIVER, "node-1", True, "Mismatch"),
    ],
)
def test_agent_reports_device_of_another_driver_that_a_pod_has(
    driver: str, node: str, reported: bool, state: str
) -> None:
    """That driver names devices as it likes, and the kubelet's status has no UUIDs of them."""
    pod = claims.claiming(make.running_pod(containers=(Container("main", running=True, ran=True),)))
    reserved = claims.assignment(pod, "GPU-1-0").model_copy(update={"resource": "gpu.nvidia.com"})
    allocated = (DeviceAllocation(driver, node, "gpu-7"),)
    claim = replace(claims.claim(pod, reserved), allocated=allocated)
    held = {"GPU-1-0": reserved} if reported else {}
    telemetry = make.telemetry("node-1", assignments=[reserved], held=held, transport=Transport.DRA)
    snapshot = make.snapshot(pod, telemetry, claims=claims.by_pod(claim))
    found = verify_allocation(snapshot, PassState(), pod, Reservation("node-1", reserved), kubelet_reports=True)
    assert found.state == state
    assert found.missing == ("" if state != "Bound" else found.missing)


@pytest.mark.parametrize(
    ("driver", "listed", "state"),
    [
        ("gpu.nvidia.com", {"server": ALL, "main": ALL}, "Allocated"),
        ("gpu.nvidia.com", {"server": ALL, "main": ()}, "Bound"),
        ("gpu.nvidia.com", {"server": ALL, "main": ("GPU-1-0",)}, "Mismatch"),
        (DRA_DRIVER, {"server": ALL, "main": ALL}, "Mismatch"),
        (DRA_DRIVER, {"server": ("GPU-1-0",), "main": ("GPU-1-1",)}, "Allocated"),
    ],
)
def test_kubelet_lists_the_whole_claim_for_each_container(
    driver: str, listed: dict[str, tuple[str, ...]], state: str
) -> None:
    """The agent's own claims are split by the requests that it has prepared; those of other drivers are not."""
    running = [Container(name, running=True, ran=True) for name in listed]
    pod = claims.claiming(make.running_pod(containers=tuple(running)), *listed)
    containers = [ContainerDevices(name=name, count=1) for name in listed]
    reserved = claims.assignment(pod, *ALL).model_copy(update={"resource": driver, "containers": containers})
    names = [device_name(uuid) if driver == DRA_DRIVER else f"gpu-{uuid[-1]}" for uuid in ALL]
    allocated = tuple(DeviceAllocation(driver, "node-1", name) for name in names)
    claim = replace(claims.claim(pod, reserved), allocated=allocated)
    held = {
        uuid: [reserved.model_copy(update={"container": name}) for name, uuids in listed.items() if uuid in uuids]
        for uuid in ALL
    }
    telemetry = make.telemetry("node-1", assignments=[reserved], held=held, transport=Transport.DRA)
    snapshot = make.snapshot(pod, telemetry, claims=claims.by_pod(claim))
    found = verify_allocation(snapshot, PassState(), pod, Reservation("node-1", reserved))
    assert found.state == state
