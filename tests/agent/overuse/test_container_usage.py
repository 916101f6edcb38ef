"""What containers use of a device, by the pods of its processes."""

from types import MappingProxyType

import pytest

from gpufleet_agent.devices.base import DeviceInfo, ProcessMemory, ProcessUtilization, Sample
from gpufleet_agent.overuse.container_usage import ContainerUsage, container_usages, held_processes
from gpufleet_agent.podresources.holdings import HoldingContainer
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_agent.sampling.snapshot import DeviceSnapshot, HealthSnapshot, HealthState

PODS = MappingProxyType({1: ("uid-a",), 2: ("uid-b",), 3: ("uid-of-another",), 4: (), 11: ("uid-a",)})
STALE = 16.0


def holder(name: str, uid: str | None, container: str = "main") -> HoldingContainer:
    return HoldingContainer(ContainerKey("ml", name, container), process_uid=uid)


A, B = holder("a", "uid-a"), holder("b", "uid-b")

Parts = dict[int, int | None]
"""Percent or MiB by PID."""


def device(
    parts: Parts | None = None, memory: Parts | None = None, *, load: int | None = 50, age: float = 0.1
) -> DeviceSnapshot:
    sample = Sample(
        uuid="GPU-0",
        taken_at=1.0,
        utilization_percent=load,
        process_utilization=None if parts is None else tuple(ProcessUtilization(*part) for part in parts.items()),
        processes=None if memory is None else tuple(ProcessMemory(*part) for part in memory.items()),
    )
    return DeviceSnapshot(DeviceInfo("GPU-0", 0, "NVIDIA H100"), HealthSnapshot(HealthState.HEALTHY), sample, age)


@pytest.mark.parametrize(
    ("seen", "held", "expected"),
    [
        pytest.param(device({1: 30, 2: 20}), (A, B), {"a": 30, "b": 20}, id="each process goes to its pod"),
        pytest.param(device({1: 30, 11: 20}), (A, B), {"a": 50, "b": 0}, id="processes of a pod add up"),
        pytest.param(device({1: 70, 11: 60}), (A,), {"a": 100}, id="at most the whole device"),
        pytest.param(device({1: 30, 3: 9, 4: 9, 99: 9}), (A,), {"a": 30}, id="others, the host, and ended ones"),
        pytest.param(device({1: 30, 11: None, 2: 5}), (A, B), {"b": 5}, id="an impossible part hides its pod only"),
        pytest.param(device({}, load=0), (A, B), {"a": 0, "b": 0}, id="no process has run"),
        pytest.param(device({}), (A, B), {}, id="the device works, but the driver lists no process"),
        pytest.param(device(None), (A, B), {}, id="the driver does not report it"),
        pytest.param(device({1: 30}), (holder("a", None),), {}, id="a pod without a known UID"),
        pytest.param(device({1: 30}), (A, holder("a", "uid-a", "side")), {}, id="two containers of a pod"),
        pytest.param(device({1: 30}, age=17.0), (A,), {}, id="long ago"),
    ],
)
def test_utilization_is_that_of_the_pods_processes(
    seen: DeviceSnapshot, held: tuple[HoldingContainer, ...], expected: dict[str, int]
) -> None:
    usages = container_usages([seen], {"GPU-0": held}, PODS.get, STALE)
    assert {usage.key.pod: usage.utilization_percent for usage in usages} == expected


def test_memory_is_that_of_the_pods_processes_or_absent() -> None:
    seen = device(memory={1: 700, 11: 300, 2: None, 3: 9000})
    usages = container_usages([seen], {"GPU-0": (A, B)}, PODS.get, STALE)
    assert usages == (ContainerUsage("GPU-0", A.key, None, 1000),)


def test_managed_pod_is_known_by_its_reservation() -> None:
    managed = HoldingContainer(ContainerKey("ml", "a", "main"), pod_uid="uid-a")
    (usage,) = container_usages([device({1: 30})], {"GPU-0": (managed,)}, PODS.get, STALE)
    assert usage.utilization_percent == 30


def test_only_processes_of_held_devices_are_looked_up() -> None:
    seen = device({1: 30}, {1: 700, 2: 5})
    assert held_processes([seen], {"GPU-0": (A,)}, STALE) == {1, 2}
    assert held_processes([seen], {}, STALE) == frozenset()
