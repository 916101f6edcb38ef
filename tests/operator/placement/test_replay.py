"""A decision saved and made again gives the same bytes; an edited snapshot answers what would have been."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_api.workload_placement import Strategy
from gpufleet_operator.placement import Fleet, place, place_all
from gpufleet_operator.placement.replay import capture, load, replay, save
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import generators
from gpufleet_testing.placement.builders import make_device, make_node, make_request


@examples(30)
@given(data=st.data())
def test_a_record_replays_to_the_same_bytes(data: st.DataObject) -> None:
    made = capture(Fleet.of(data.draw(generators.fleets())), data.draw(generators.requests()))
    raw = save(made)
    assert load(raw) == made
    assert save(replay(load(raw))) == raw


def test_the_bytes_do_not_depend_on_the_order_of_the_nodes() -> None:
    nodes = [make_node("a", 2, labels={"x": "1", "y": "2"}), make_node("b", 2)]
    again = [make_node("b", 2), make_node("a", 2, labels={"y": "2", "x": "1"})]
    request = make_request(strategy=Strategy.PACK)
    assert save(capture(Fleet.of(nodes), request)) == save(capture(Fleet.of(again), request))


def test_what_if_a_node_were_away() -> None:
    made = capture(Fleet.of([make_node("a", 1), make_node("b", 1)]), make_request())
    assert made.decision.picks[0].node == "a"
    without_a = replay(made, lambda fleet: fleet.remove("a"))
    assert without_a.decision.picks[0].node == "b"
    assert [n.name for n in without_a.nodes] == ["b"]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"nodes":[],"request":{},"mix":{},"decision":{}}', b"\xff"])
def test_other_bytes_are_rejected(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(raw)


def test_the_higher_priority_chooses_first_and_the_answers_keep_their_order() -> None:
    nodes = [make_node("a", [make_device("GPU-hot", 0, temperature_celsius=80), make_device("GPU-cool", 1)])]
    low, high = make_request(priority=1), make_request(priority=5)
    fleet = Fleet.of(nodes)
    decisions = place_all(fleet, [low, high, low])
    assert [d.picks[0].devices if d.picks else () for d in decisions] == [("GPU-hot",), ("GPU-cool",), ()]
    assert place(fleet, low).picks[0].devices == ("GPU-cool",), "the fleet is left alone"
