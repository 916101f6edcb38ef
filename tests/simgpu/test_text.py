from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufleet_simgpu.model import (
    ALL,
    MAX_XIDS,
    NOT_AVAILABLE,
    SWITCH,
    SimGpu,
    SimLinks,
    SimMig,
    SimNode,
    SimProcess,
    SimSeries,
)
from gpufleet_simgpu.presets import PRESETS, busy, make_node
from gpufleet_simgpu.text import FIELDS, NUMBERS, StateFormatError, parse, render

words = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=8)
texts = st.lists(words, min_size=1, max_size=4).map(" ".join)
instances = st.integers(0, 15)
processes = st.builds(
    SimProcess,
    st.integers(1, 2**31 - 1),
    st.integers(-1, 10**6),
    st.sampled_from(["C", "G"]),
    st.none() | instances,
)
migs = st.builds(SimMig, words, words, instances, st.integers(0, 10**6), st.integers(0, 10**6), instances)
links = st.builds(SimLinks, st.integers(0, 63) | st.just(SWITCH), st.integers(1, 18))
series = st.builds(SimSeries, words, st.floats(0, 2e9), loop=st.booleans())
per_field = st.dictionaries(st.sampled_from([ALL, *FIELDS]), st.integers(0, 999), max_size=4)
numbers = st.dictionaries(st.sampled_from(NUMBERS), st.integers(-5, 2**40), max_size=8)
gpus = st.builds(
    lambda numbers, **others: SimGpu(**numbers, **others),
    numbers,
    uuid=words,
    name=texts,
    pci_bus_id=words,
    compute_capability=st.none() | st.just("9.0"),
    serial=st.none() | words,
    processes=st.lists(processes, max_size=3).map(tuple),
    migs=st.lists(migs, max_size=3).map(tuple),
    links=st.lists(links, max_size=3).map(tuple),
    series=st.none() | series,
    fail=per_field,
    delay=per_field,
)
nodes = st.builds(
    SimNode,
    gpus=st.lists(gpus, max_size=3).map(tuple),
    driver=words,
    cuda=st.integers(0, 99999),
    error=st.integers(0, 999),
)


@given(
    nodes,
    st.lists(
        st.tuples(st.integers(0, 63), st.integers(1, 200), st.none() | st.tuples(instances, instances)), max_size=4
    ),
)
def test_render_and_parse_round_trip(node: SimNode, xids: list[tuple[int, int, tuple[int, int] | None]]) -> None:
    for gpu, code, where in xids:
        node = node.with_xid(gpu, code, where)
    assert parse(render(node)) == node


def test_render_follows_the_documented_format() -> None:
    gpu = SimGpu(
        uuid="GPU-1",
        name="NVIDIA H100 80GB HBM3",
        pci_bus_id="00000000:1B:00.0",
        temperature_celsius=41,
        power_milliwatts=NOT_AVAILABLE,
        processes=(SimProcess(4711, 5000),),
        links=(SimLinks(SWITCH, 18),),
        fail={ALL: 15},
        delay={"handle": 5},
    )
    assert render(SimNode(gpus=(gpu,)).with_xid(0, 79)).splitlines() == [
        "driver 580.95.05",
        "cuda 13000",
        "gpu 0",
        "  uuid GPU-1",
        "  name NVIDIA H100 80GB HBM3",
        "  pci_bus_id 00000000:1B:00.0",
        "  temperature_celsius 41",
        "  power_milliwatts na",
        "  process 4711 5000 C",
        "  nvlink switch 18",
        "  fail all 15",
        "  delay handle 5",
        "xid 1 0 79",
    ]


@pytest.mark.parametrize(
    "line",
    ["gpu 1", "color red", "gpu 0\ncolour red", "gpu 0\nfail color 3", "gpu 0\nprocess 1 2 X", "xid 1", "cuda x"],
)
def test_parse_rejects_a_bad_line_with_its_number(line: str) -> None:
    with pytest.raises(StateFormatError, match=r"line \d: "):
        parse(line)


@pytest.mark.parametrize("change", [{"name": ""}, {"name": "two\nlines"}, {"fail": {"color": 3}}])
def test_render_rejects_values_that_do_not_fit_on_a_line(change: dict[str, Any]) -> None:
    with pytest.raises(StateFormatError):
        render(make_node("l4", 1).with_gpu(0, **change))


@pytest.mark.parametrize("model", PRESETS)
def test_presets_are_complete_and_stable(model: str) -> None:
    node = make_node(model, 8, node="node-1")
    assert node == make_node(model, 8, node="node-1")
    assert parse(render(node)) == node
    every = [gpu.uuid for gpu in node.gpus + make_node(model, 8, node="node-2").gpus]
    assert len(set(every)) == 16
    hot = busy(node.gpus[0], load=100, memory_mib=1000, temperature_celsius=90)
    assert hot.power_milliwatts is not None
    assert hot.power_limit_milliwatts is not None
    assert node.gpus[0].power_milliwatts is not None
    assert node.gpus[0].power_milliwatts < hot.power_milliwatts < hot.power_limit_milliwatts


def test_changes_of_missing_gpus_and_fields_fail() -> None:
    node = make_node("l4", 2)
    with pytest.raises(IndexError, match="no GPU 2"):
        node.with_gpu(2, minor=1)
    with pytest.raises(ValueError, match="model 'h900' not found"):
        make_node("h900")
    with pytest.raises(ValueError, match="64"):
        make_node("l4", 65)
    with pytest.raises(ValueError, match="power"):
        busy(replace(node.gpus[0], power_milliwatts=None), load=1, memory_mib=1, temperature_celsius=1)


def test_faults_are_set_and_cleared() -> None:
    node = make_node("l4", 2)
    assert node.lose(1).gpus[1].lost
    assert node.lose(1).with_delay(1, "name", 5).restore(1) == node
    assert node.with_fail(0, "name", 4).with_fail(0, "name", 0) == node


def test_oldest_xids_are_dropped() -> None:
    node = make_node("l4", 1)
    for code in range(1, MAX_XIDS + 11):
        node = node.with_xid(0, code)
    assert len(node.xids) == MAX_XIDS
    assert node.xids[-1].sequence == MAX_XIDS + 10
