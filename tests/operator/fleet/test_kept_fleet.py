"""The kept fleet after any updates is the one that is built from the same nodes."""

from dataclasses import replace
from datetime import timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gpufleet_operator.fleet.kept_fleet import ContestedDeviceError, KeptFleet, could_serve
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import DeviceState, NodeState
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.operator import make
from gpufleet_testing.placement import generators

STALE_AFTER = timedelta(seconds=90)


def updated(kept: KeptFleet, *nodes: NodeState, gone: str = "") -> list[NodeState]:
    names = {node.name for node in nodes} | ({gone} if gone else set())
    return kept.update(names, nodes, make.NOW, STALE_AFTER)


def without_ages(fleet: Fleet) -> dict[str, NodeState]:
    """Ages of samples are not kept: the engine only uses whether there is a sample."""
    return {
        name: replace(
            node,
            devices=tuple(
                replace(d, sample_age_seconds=None if d.sample_age_seconds is None else 0.0) for d in node.devices
            ),
        )
        for name, node in fleet.nodes.items()
    }


@examples(50)
@given(st.data())
def test_fleet_after_updates_is_that_of_the_last_nodes(data: st.DataObject) -> None:
    before, after = data.draw(generators.fleets()), data.draw(generators.fleets())
    kept = KeptFleet()
    kept.fill(before, make.NOW, STALE_AFTER)
    gone = {node.name for node in before} - {node.name for node in after}
    try:
        kept.update(gone | {node.name for node in after}, after, make.NOW, STALE_AFTER)
    except ContestedDeviceError:
        return  # a device moved between nodes: the caller fills a new fleet

    assert without_ages(kept.fleet) == without_ages(Fleet.of(after))


@examples(50)
@given(st.data())
def test_node_that_is_left_out_could_not_have_served_the_request(data: st.DataObject) -> None:
    node, asked = data.draw(generators.nodes()), replace(data.draw(generators.requests()), gang=False)
    if not could_serve(node, asked):
        assert place(Fleet.of([node]), asked).picks == ()


def test_node_with_older_samples_only_has_not_changed() -> None:
    kept, node = KeptFleet(), device_node("n", "a", "b")
    sampled = [replace(device, sample_age_seconds=1.0) for device in node.devices]
    kept.fill([replace(node, devices=tuple(sampled))], make.NOW, STALE_AFTER)

    older = [replace(device, sample_age_seconds=2.5) for device in node.devices]

    assert updated(kept, replace(node, devices=tuple(older))) == []
    assert kept.stale_at == {"n": make.NOW + timedelta(seconds=87.5)}


def device_node(name: str, *uuids: str) -> NodeState:
    return NodeState(
        name, tuple(DeviceState(uuid, index, "H100", 80_000, 0, 0, 40) for index, uuid in enumerate(uuids))
    )


def test_picks_are_undone_by_the_next_update_and_count_as_a_change() -> None:
    kept, node = KeptFleet(), device_node("n", "a", "b")
    kept.fill([node], make.NOW, STALE_AFTER)
    kept.fleet.hold("n", ["a"])
    kept.note_picks(["n"])

    assert [changed.name for changed in updated(kept, node)] == ["n"]
    assert not any(device.held for device in kept.fleet.nodes["n"].devices)
    assert updated(kept, node) == []


def test_picks_of_an_unfinished_pass_are_taken_back() -> None:
    kept, node = KeptFleet(), device_node("n", "a")
    kept.fill([node], make.NOW, STALE_AFTER)
    kept.fleet.hold("n", ["a"])

    kept.restore(["n"])

    assert not kept.fleet.nodes["n"].devices[0].held


def test_earmarks_of_a_pass_end_with_the_next_update() -> None:
    kept, node = KeptFleet(), device_node("n", "a")
    kept.fill([node], make.NOW, STALE_AFTER)
    kept.fleet.earmark(["a"], "ml/big")

    assert updated(kept, node) == []
    assert kept.fleet.earmarks == {}


def test_device_on_two_nodes_needs_all_nodes_in_their_order() -> None:
    kept = KeptFleet()
    kept.fill([device_node("n1", "a"), device_node("n2", "b"), device_node("n3", "c")], make.NOW, STALE_AFTER)
    with pytest.raises(ContestedDeviceError):
        updated(kept, device_node("n2", "a"))

    again = KeptFleet()
    again.fill([device_node("n1", "a"), device_node("n2", "a"), device_node("n3", "c")], make.NOW, STALE_AFTER)

    assert len(again.inconsistencies) == 1
    assert updated(again, device_node("n3", "c", "d"))
    for name in ("n1", "n2"):  # the node that keeps the device, and the one that is left out
        with pytest.raises(ContestedDeviceError):
            updated(again, device_node(name, "e"))


def test_node_becomes_stale_with_its_oldest_sample() -> None:
    kept, node = KeptFleet(), device_node("n", "a", "b")
    ages = (10.0, 30.0)
    devices = tuple(replace(d, sample_age_seconds=age) for d, age in zip(node.devices, ages, strict=True))
    kept.fill([replace(node, devices=devices)], make.NOW, STALE_AFTER)

    assert kept.stale_at == {"n": make.NOW + timedelta(seconds=60)}
    updated(kept, gone="n")
    assert kept.stale_at == {}
