"""Expected waste: against a pod-by-pod simulation in plain Python, and where it must be exact by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_operator.placement.packing import PRIOR, Mix, PodType
from gpufleet_operator.placement.packing import fragmentation as module
from gpufleet_operator.placement.packing.fragmentation import Fragmentation
from gpufleet_operator.placement.packing.sample_arrivals import ARRIVALS, SAMPLES, sample_arrivals
from gpufleet_operator.placement.packing.simulation import Simulation
from gpufleet_testing.hypothesis_profiles import examples

GIB = 2**30
SINGLES = Mix.of({PodType(4_000, GIB, 1): 2, PodType(2_000, GIB, 1, 500): 1, PodType(8_000, 4 * GIB, 0): 1})
PICKY = Mix.of({PodType(1_000, GIB, 1, 300, frozenset({"A"})): 1, PodType(1_000, GIB, 1, 700): 1})


def fragmentation(
    model: Fragmentation, free: list[int], cpu: int = 10**9, memory: int = 2**50, model_class: int = 0
) -> int:
    """In thousandths of a device times SAMPLES."""
    useful, stranded = model.split(free)
    keys = model.keys(
        np.array([useful]), np.array([model_class]), model.resource_bins(np.array([cpu]), np.array([memory]))
    )
    found = int(model.of(keys)[0])
    assert model.of_one(useful, model_class, cpu, memory) == found
    return stranded * SAMPLES + found


@examples(30)
@given(
    free=st.lists(st.sampled_from([0, 100, 200, 300, 500, 700, 900, 1000]), min_size=1, max_size=4),
    cpu=st.sampled_from([0, 3_999, 4_000, 7_800, 16_000, 64_000]),
    memory=st.sampled_from([0, 8 * GIB - 1, 8 * GIB, 15 * GIB // 2, 64 * GIB]),
    case=st.sampled_from([(SINGLES, 0), (PICKY, 0), (PICKY, 1)]),
)
def test_it_is_what_is_left_when_every_stream_was_offered(
    free: list[int], cpu: int, memory: int, case: tuple[Mix, int]
) -> None:
    mix, model_class = case
    assert fragmentation(Fragmentation(mix), free, cpu, memory, model_class) == simulated(
        mix, free, cpu, memory // 2**20, model_class
    )


@examples(30)
@given(
    mix=st.sampled_from([SINGLES, PICKY]),
    resource_bins=st.lists(
        st.tuples(
            st.sampled_from([(1000,), (1000, 700), (500, 300, 300)]),
            st.integers(0, 12).map(lambda n: n * 3_000),
            st.integers(0, 8).map(lambda n: n * 3 * GIB),
        ),
        min_size=2,
        max_size=12,
    ),
)
def test_memoized_fragmentation_equals_a_fresh_simulation(
    mix: Mix, resource_bins: list[tuple[tuple[int, ...], int, int]]
) -> None:
    one_by_one = Fragmentation(mix)
    for free, cpu, memory in resource_bins:
        assert fragmentation(one_by_one, list(free), cpu, memory) == fragmentation(
            Fragmentation(mix), list(free), cpu, memory
        )


def simulated(mix: Mix, free: list[int], cpu: int, memory: int, model_class: int) -> int:
    """Best fit, pod by pod."""
    offered, left = sample_arrivals(mix), 0
    for stream in range(SAMPLES):
        devices, room = list(free), [cpu, memory]
        for step in range(ARRIVALS):
            wants = int(offered.cpu[step, stream]), int(offered.memory[step, stream])
            milli = int(offered.milli[step, stream])
            fitting = [d for d in range(len(devices)) if devices[d] >= milli]
            if (
                not offered.accepted[step, stream, model_class]
                or wants[0] > room[0]
                or wants[1] > room[1]
                or not fitting
            ):
                continue
            room = [room[0] - wants[0], room[1] - wants[1]]
            if milli:
                devices[min(fitting, key=lambda d: (devices[d], d))] -= milli
        left += sum(devices)
    return left


def test_a_node_without_cpu_wastes_all_its_devices() -> None:
    assert fragmentation(Fragmentation(SINGLES), [1000, 1000, 400], cpu=0) == 2_400 * SAMPLES


def test_a_rest_that_no_share_fills_is_waste_to_the_last_thousandth() -> None:
    model = Fragmentation(Mix.of({PodType(0, 0, 1): 1, PodType(0, 0, 1, 810): 1}))
    assert fragmentation(model, [190]) == 190 * SAMPLES
    assert fragmentation(model, [900]) == 90 * SAMPLES


def test_an_idle_node_with_room_enough_wastes_nothing() -> None:
    assert fragmentation(Fragmentation(Mix.of({PodType(1_000, GIB, 1): 1})), [1000] * 8) == 0


def test_the_order_of_the_devices_makes_no_difference() -> None:
    model = Fragmentation(SINGLES)
    assert fragmentation(model, [300, 1000, 500, 0], 12_000) == fragmentation(model, [0, 500, 300, 1000], 12_000)


def test_a_mix_of_large_pods_alone_values_every_device_alike() -> None:
    model = Fragmentation(Mix.of({PodType(8_000, GIB, 8): 1}))
    assert fragmentation(model, [1000, 1000]) == 2_000 * SAMPLES


@pytest.mark.parametrize("size", [1, 700, 3_000, 8_000, 12_000, 24_000])
def test_a_node_with_less_room_than_any_pod_takes_wastes_all_its_devices(size: int) -> None:
    """However little is missing, where sizes are round."""
    for model_class in (PodType(size, GIB, 1), PodType(1_000, size * 2**20, 1)):
        model = Fragmentation(Mix.of({model_class: 1}))
        enough = model_class.cpu_milli, model_class.memory_bytes
        assert fragmentation(model, [1000], *enough) == 0
        assert fragmentation(model, [1000], enough[0] - 1, enough[1]) == 1_000 * SAMPLES
        assert fragmentation(model, [1000], enough[0], enough[1] - 1) == 1_000 * SAMPLES


@pytest.mark.parametrize("exponent", [50, 56, 59, 60, 61, 62])
def test_a_pod_larger_than_any_node_takes_nothing_and_breaks_nothing(exponent: int) -> None:
    """Up to the largest amounts that can be asked for."""
    for huge in (PodType(2**exponent, 0, 1), PodType(0, 2**exponent, 1)):
        model = Fragmentation(Mix.of({huge: 1}))
        for room in (0, 64_000, 10**9):
            assert fragmentation(model, [1000, 1000], room, room * 2**20) == 2_000 * SAMPLES


@pytest.mark.parametrize("devices", [256, 257, 600])
def test_many_devices_of_a_node_are_counted_in_full(devices: int) -> None:
    assert fragmentation(Fragmentation(SINGLES), [1000] * devices, cpu=0) == devices * 1_000 * SAMPLES


def test_offers_are_kept_within_bounds() -> None:
    """Many sizes of shares on nodes of many sizes."""
    model = Fragmentation(Mix.of({PodType(2**n, GIB, 1, milli): 1 for n, milli in enumerate(range(20, 400, 19))}))
    for largest in range(1, 1000, 19):
        for cpu in (0, *(2**n for n in range(22))):
            fragmentation(model, [largest], cpu)
    assert 0 < len(model._simulation._fitting) <= 128
    assert 0 < len(model._simulation._memoized) <= 128


def test_states_are_remembered() -> None:
    model = Fragmentation(PRIOR)
    first = fragmentation(model, [1000, 500])
    known = dict(model._known)
    assert fragmentation(model, [500, 1000]) == first
    assert fragmentation(model, [1000, 500, 0]) == first
    assert model._known == known, "neither the order of devices nor one that is full makes a new state"


def test_replaced_part_equals_a_fresh_split() -> None:
    model = Fragmentation(Mix.of({PodType(0, 0, 1): 1, PodType(0, 0, 1, 250): 1}))
    useful = model.useful
    for free in ([1000, 500, 310], [1000], [260, 260]):
        number, stranded = model.split(free)
        for at, before in enumerate(free):
            for after in (0, 20, 240, 250, 999):
                then = model.split([*free[:at], after, *free[at + 1 :]])
                gone, come = useful[[before]], useful[[after]]
                replaced = int(model.replaced(np.array([number]), gone, come)[0])
                assert (replaced, stranded + int(gone[0] - before + after - come[0])) == then
        whole = free.count(1000)
        assert int(model.without(np.array([number]), whole)[0]) == model.split(free[whole:])[0]


def test_numbers_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_STATES", 3)
    model = Fragmentation(SINGLES)
    nodes = [[1000] * idle + [500] * half for idle in range(3) for half in range(3)]
    before = [fragmentation(model, free, 12_000) for free in nodes]
    assert model.generation == 0, "none is void in the middle of a decision"
    model.evict()
    assert model.generation == 1
    assert [fragmentation(model, free, 12_000) for free in nodes] == before


def test_streams_are_fair_samples_of_the_mix() -> None:
    """Over all streams each type is offered as often as the mix says, and no stream is far off."""
    offered = sample_arrivals(SINGLES)
    shared = (offered.milli == 500).mean(axis=0)
    assert abs(float(shared.mean()) - 0.25) < 0.01
    assert float(abs(shared - 0.25).max()) <= 1 / ARRIVALS


def test_classes_tell_models_apart_only_as_far_as_the_mix_does() -> None:
    model = Fragmentation(PICKY)
    assert model.classes == {"A": 1}
    assert fragmentation(model, [300], model_class=0) == 300 * SAMPLES
    assert fragmentation(model, [300], model_class=1) == 0


def test_a_few_enormous_pods_leave_the_steps_as_they_are() -> None:
    usual = {
        PodType(cpu, cpu * BYTES_PER_MIB, 1, milli): 1.0 for cpu, milli in ((3_700, 1000), (9_100, 500), (12_300, 250))
    }
    slip = PodType(10**9, 2**50, 1)
    without, with_it = (Simulation(sample_arrivals(Mix.of(mix))) for mix in (usual, usual | {slip: 0.04}))
    assert int(sample_arrivals(Mix.of(usual | {slip: 0.04})).cpu.max()) == 10**9
    assert (without.cpu_step, without.memory_step) == (with_it.cpu_step, with_it.memory_step)
