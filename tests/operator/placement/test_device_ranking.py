import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_operator.placement import Fleet, aggregate, place, rank_devices, select_best_device
from gpufleet_operator.placement.errors import InvalidFleetError, InvalidRequestError
from gpufleet_operator.placement.model import DeviceNeeds, ScoreWeights, Share
from gpufleet_testing.hypothesis_profiles import examples
from gpufleet_testing.placement import generators, oracle
from gpufleet_testing.placement.builders import DeviceFields, make_device, make_node, make_request


@examples(30)
@given(data=st.data())
def test_the_ranking_holds_every_usable_device_once_best_first(data: st.DataObject) -> None:
    nodes = data.draw(generators.fleets())
    fleet = Fleet.of(nodes)
    if not fleet.where:
        return
    weights = data.draw(st.sampled_from([ScoreWeights(), ScoreWeights(0, 0, 1, 0)]))
    least = data.draw(st.sampled_from([None, 40_000]))
    want = [
        (-oracle.score(d, weights), n.name, d.index, d.uuid)
        for n in nodes
        if n.stale_reason is None
        for d in n.devices
        if oracle.device_rejection(d, DeviceNeeds(min_free_memory_mib=least)) is None
    ]
    ranked = rank_devices(fleet, weights=weights, min_free_memory_mib=least)
    assert [r.device for r in ranked] == [uuid for *_, uuid in sorted(want)]
    assert [r.terms.total for r in ranked] == [-worth / 1_000_000 for worth, *_ in sorted(want)]
    assert select_best_device(fleet, weights=weights, min_free_memory_mib=least) == (ranked[0] if ranked else None)


def test_a_subset_is_ranked_by_itself() -> None:
    fleet = Fleet.of([make_node("a", 4), make_node("b", 1)])
    assert [r.device for r in rank_devices(fleet, among={"GPU-b-0", "GPU-a-3"})] == ["GPU-a-3", "GPU-b-0"]


def test_the_ranking_follows_what_changed() -> None:
    fleet = Fleet.of([make_node("a", 2)])
    assert [r.device for r in rank_devices(fleet)] == ["GPU-a-0", "GPU-a-1"]
    fleet.put(make_node("a", [make_device("GPU-a-0", 0, temperature_celsius=70), make_device("GPU-a-1", 1)]))
    assert [r.device for r in rank_devices(fleet)] == ["GPU-a-1", "GPU-a-0"]
    fleet.hold("a", ["GPU-a-1"])
    assert [r.device for r in rank_devices(fleet)] == ["GPU-a-0"]


def test_a_ranking_is_not_read_after_the_fleet_changed() -> None:
    fleet = Fleet.of([make_node("a", 3)])
    ranked = rank_devices(fleet)
    assert [r.device for r in ranked[1:]] == ["GPU-a-1", "GPU-a-2"]
    fleet.hold("a", ["GPU-a-0"])
    with pytest.raises(InvalidFleetError, match="changed since it was ranked"):
        _ = ranked[0]


def test_unregistered_device_in_the_subset_is_named() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    with pytest.raises(InvalidFleetError, match="device GPU-gone is not in the fleet"):
        rank_devices(fleet, among=["GPU-a-0", "GPU-gone"])
    with pytest.raises(InvalidFleetError, match="device GPU-gone is not in the fleet"):
        select_best_device(fleet, among=["GPU-gone"])


def test_an_empty_fleet_and_bad_arguments_are_rejected() -> None:
    with pytest.raises(InvalidFleetError, match="the fleet has no device"):
        rank_devices(Fleet())
    fleet = Fleet.of([make_node("a", 1)])
    with pytest.raises(InvalidRequestError, match="sum to 0"):
        rank_devices(fleet, weights=ScoreWeights(0, 0, 0, 0))
    with pytest.raises(InvalidRequestError, match="min_free_memory_mib is -1"):
        rank_devices(fleet, min_free_memory_mib=-1)


def test_nothing_passes_gives_nothing() -> None:
    fleet = Fleet.of([make_node("a", 1)])
    assert not rank_devices(fleet, min_free_memory_mib=90_000)
    assert select_best_device(fleet, min_free_memory_mib=90_000) is None


def test_aggregates_are_sums_and_means_over_what_is_reported() -> None:
    devices = [
        make_device("GPU-0", 0, memory_used_mib=1_000, utilization_percent=10, temperature_celsius=30),
        make_device("GPU-1", 1, memory_used_mib=3_000, utilization_percent=None, sample_age_seconds=7.0),
        make_device("GPU-2", 2, held=True, utilization_percent=20, power_milliwatts=None),
        make_device("GPU-3", 3, healthy=False, temperature_celsius=None, utilization_percent=None),
    ]
    found = aggregate(Fleet.of([make_node("a", devices)]))
    assert (found.devices, found.healthy, found.idle, found.held, found.shared) == (4, 3, 2, 1, 0)
    assert (found.memory_total_mib, found.memory_used_mib) == (320_000, 4_000)
    assert found.memory_available_mib == 156_000
    assert found.mean_utilization_percent == 15
    assert found.mean_temperature_celsius == pytest.approx(110 / 3)
    assert found.power_milliwatts == 210_000
    assert found.oldest_sample_seconds == 7.0


def test_aggregates_of_nothing_are_absent_not_zero() -> None:
    bare: DeviceFields = {
        "memory_total_mib": None,
        "memory_used_mib": None,
        "utilization_percent": None,
        "temperature_celsius": None,
        "power_milliwatts": None,
        "sample_age_seconds": None,
    }
    for nodes in (
        [],
        [make_node("a", 0)],
        [make_node("a", [make_device("GPU-a", 0, **bare)])],
        [make_node("a", 1, stale_reason="old")],
    ):
        found = aggregate(Fleet.of(nodes))
        for absent in (
            found.memory_total_mib,
            found.memory_used_mib,
            found.memory_available_mib,
            found.mean_utilization_percent,
            found.mean_temperature_celsius,
            found.power_milliwatts,
            found.oldest_sample_seconds,
        ):
            assert absent is None


def test_aggregates_follow_a_hold() -> None:
    fleet = Fleet.of([make_node("a", 2)])
    assert aggregate(fleet).idle == 2
    fleet.hold("a", ["GPU-a-0"])
    assert aggregate(fleet).idle == 1


def test_a_share_is_ranked_among_shared_devices_as_well() -> None:
    devices = [
        make_device("GPU-0", 0, sharers=1, promised_memory_mib=30_000),
        make_device("GPU-1", 1, temperature_celsius=80),
        make_device("GPU-2", 2, sharers=1, promised_memory_mib=75_000),
        make_device("GPU-3", 3, sharers=1, promised_memory_mib=1_000, free_slots=0),
        make_device("GPU-4", 4, held=True),
    ]
    fleet = Fleet.of([make_node("a", devices)])
    assert [r.device for r in rank_devices(fleet)] == ["GPU-1"]
    weights = ScoreWeights(0, 0, 1, 0)
    assert [r.device for r in rank_devices(fleet, share=Share(10_000, 10), weights=weights)] == ["GPU-0", "GPU-1"]
    best = select_best_device(fleet, share=Share(10_000, 10), weights=weights)
    assert best is not None
    assert best.device == "GPU-0"


def test_allowed_weights_rank_by_ratio_and_larger_ones_are_rejected() -> None:
    devices = [make_device("GPU-0", 0, memory_used_mib=40_000), make_device("GPU-1", 1, memory_used_mib=0)]
    fleet = Fleet.of([make_node("a", devices)])
    small, large = (rank_devices(fleet, weights=ScoreWeights(*[weight] * 4)) for weight in (1, 1_000_000))
    assert list(small) == list(large)
    assert [r.device for r in large] == ["GPU-1", "GPU-0"]
    for weights in (ScoreWeights(memory=1_000_001), ScoreWeights(power=2**63)):
        with pytest.raises(InvalidRequestError, match=r"weight (memory|power) is \d+, must be 1000000 or less"):
            rank_devices(fleet, weights=weights)
        with pytest.raises(InvalidRequestError, match="must be 1000000 or less"):
            place(fleet, make_request(weights=weights))
