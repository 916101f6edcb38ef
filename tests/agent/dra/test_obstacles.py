"""When the devices of a claim can be given to its containers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import pytest

from gpufleet_agent.dra.devices import ClaimableGpu
from gpufleet_agent.dra.obstacles import (
    Obstacle,
    ObstacleInput,
    blocking,
    find_obstacle,
    prepared_devices,
)
from gpufleet_agent.dra.prepared_claim import PreparedClaim
from gpufleet_agent.kube.model import Assignment
from gpufleet_agent.podresources.holdings import OtherHolder, OtherHolders
from gpufleet_agent.podresources.listing import ContainerKey
from gpufleet_testing.agent.dra import claim, gpu, gpus, prepared
from gpufleet_testing.agent.objects import assignment


class NodeFields(TypedDict, total=False):
    gpus: Mapping[str, ClaimableGpu]
    assignments: tuple[Assignment, ...] | None
    others: tuple[PreparedClaim, ...]
    holders: OtherHolders
    missing_files: Mapping[str, str]


ALL = gpus(gpu(0), gpu(1))
BY_PLUGIN = OtherHolder(ContainerKey("ml", "b", "main"), "gpufleet.dev/gpu")
SLOT = replace(BY_PLUGIN, resource="gpufleet.dev/gpu-shared", shared=True)


def node(**fields: Unpack[NodeFields]) -> ObstacleInput:
    return replace(ObstacleInput(gpus=ALL, assignments=()), **fields)


def message(found: Obstacle | None) -> str:
    return "" if found is None else found.message


def test_claim_of_free_devices_can_be_prepared() -> None:
    assert find_obstacle(claim("a", "GPU-0", "GPU-1"), node()) is None


def test_claim_of_the_reserved_devices_can_be_prepared() -> None:
    assert find_obstacle(claim("a", "GPU-0"), node(assignments=(assignment("a", "GPU-0", "GPU-1"),))) is None


@pytest.mark.parametrize(
    ("change", "expected", "may_end"),
    [
        pytest.param({"assignments": None}, "the reservations of this node were not read yet", True, id="not read"),
        pytest.param({"gpus": {}}, "device gpu-0 is not known on this node", True, id="unknown"),
        pytest.param(
            {"gpus": gpus(gpu(0, faults=("ReadFailed",)))}, "device GPU-0 is unhealthy: ReadFailed", True, id="passing"
        ),
        pytest.param(
            {"gpus": gpus(gpu(0, faults=("XidError",), may_recover=False))},
            "device GPU-0 is unhealthy: XidError",
            False,
            id="needs a reset",
        ),
        pytest.param({"missing_files": {"GPU-0": "no device node"}}, "device GPU-0: no device node", True, id="files"),
        pytest.param(
            {"assignments": (assignment("a", "GPU-1"),)},
            "claim ml/claim-a has GPU-0, but its pod's reservation has GPU-1",
            True,
            id="other devices reserved",
        ),
        pytest.param(
            {"assignments": (assignment("b", "GPU-0"),)},
            "device GPU-0 is reserved for pod ml/b",
            True,
            id="reserved for another pod",
        ),
        pytest.param(
            {"others": (prepared("b", "GPU-0"),)},
            "device GPU-0 is still prepared for claim ml/claim-b (pod b)",
            True,
            id="held by another claim",
        ),
        pytest.param(
            {"holders": {"GPU-0": (BY_PLUGIN,)}},
            "device GPU-0 is held by ml/b/main as gpufleet.dev/gpu",
            True,
            id="held by a device plugin",
        ),
    ],
)
def test_obstacle_names_device_and_reason(change: dict[str, Any], expected: str, may_end: bool) -> None:
    assert find_obstacle(claim("a", "GPU-0"), node(**change)) == Obstacle(expected, may_end)


def test_claim_without_a_device_of_this_node_is_rejected() -> None:
    assert message(find_obstacle(claim("a"), node())) == "claim ml/claim-a has no device of this node"


@pytest.mark.parametrize(
    ("wanted", "held", "blocked"),
    [
        (40_000, (40_000,), False),
        (40_001, (40_000,), True),
        (20_000, (40_000, 30_000), True),
        (10_000, (None,), True),
        (None, (10_000,), True),
        (80_000, (10_000,), True),
        (None, (), False),
    ],
)
def test_shares_fit_while_their_memory_does(wanted: int | None, held: tuple[int | None, ...], blocked: bool) -> None:
    others = tuple(prepared(f"b{number}", "GPU-0", memory_mib=memory) for number, memory in enumerate(held))
    one = claim("a", "GPU-0", memory_mib=wanted)
    assert (find_obstacle(one, node(others=others)) is not None) == blocked
    assert blocking(one, ALL, others) == (frozenset(other.uid for other in others) if blocked else frozenset())


def test_share_of_a_device_that_is_shared_by_reservations_can_be_prepared() -> None:
    reserved = (assignment("b", "GPU-0", memory_mib=1000),)
    assert find_obstacle(claim("a", "GPU-0", memory_mib=1000), node(assignments=reserved)) is None
    assert find_obstacle(claim("a", "GPU-0"), node(assignments=reserved)) is not None


@pytest.mark.parametrize(
    ("wanted", "holder", "blocked"), [(None, SLOT, True), (1000, BY_PLUGIN, True), (1000, SLOT, False)]
)
def test_share_is_prepared_beside_slots_of_the_device_plugin_only(
    wanted: int | None, holder: OtherHolder, blocked: bool
) -> None:
    found = find_obstacle(claim("a", "GPU-0", memory_mib=wanted), node(holders={"GPU-0": (SLOT, holder)}))
    assert (found is not None) == blocked


def test_claim_never_waits_for_itself() -> None:
    assert find_obstacle(claim("a", "GPU-0"), node(others=(prepared("a", "GPU-0"),))) is None


def test_all_memory_of_a_device_is_the_whole_device() -> None:
    (whole,) = prepared_devices(claim("a", "GPU-0", memory_mib=80_000), ALL)
    (share,) = prepared_devices(claim("a", "GPU-0", memory_mib=79_999), ALL)
    assert (whole.memory_mib, share.memory_mib) == (None, 79_999)


def test_device_without_known_memory_has_one_claim() -> None:
    unknown = gpus(replace(gpu(0), memory_mib=None))
    other = (prepared("b", "GPU-0", memory_mib=10),)
    assert find_obstacle(claim("a", "GPU-0", memory_mib=10), node(gpus=unknown, others=other)) is not None
