"""Placements of the benchmarks are possible, and only pods that fit no node are refused."""

import csv
import importlib.util
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_{Path(name).name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    draw, folder = random.Random(1), tmp_path_factory.mktemp("trace")  # noqa: S311 - seeded, not secret
    nodes, arrivals = folder / "nodes.csv", folder / "arrivals.csv"
    shapes = [draw.choice(((96_000, 393_216, 8, "A"), (16_000, 65_536, 2, "B"))) for _ in range(12)]
    lines = [f"n{i:02},{cpu},{memory},{gpus},{model}" for i, (cpu, memory, gpus, model) in enumerate(shapes)]
    nodes.write_text("\n".join(["node,cpu_milli,memory_mib,gpu,model", *lines]))
    kinds = ("4000,8192,1,810,", "8000,16384,1,1000,", "4000,8192,1,320,A", "16000,8192,0,0,", "32000,65536,4,1000,")
    lines = [f"{i},{draw.choices(kinds, (5, 5, 3, 2, 1))[0]}" for i in range(160)]
    arrivals.write_text("\n".join(["seq,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec", *lines]))
    return nodes, arrivals


@dataclass
class Node:
    cpu: int
    memory: int
    model: str
    free: list[int]


@dataclass(frozen=True)
class Pod:
    cpu: int
    memory: int
    devices: int
    milli: int
    models: str

    def choices(self, node: Node) -> set[int]:
        """Returns the devices that fit the pod."""
        wrong = bool(self.models) and node.model not in self.models.split("|")
        return set() if wrong else {at for at, free in enumerate(node.free) if free >= self.milli}

    def fits(self, node: Node) -> bool:
        room = self.cpu <= node.cpu and self.memory <= node.memory
        return room and (not self.devices or len(self.choices(node)) >= self.devices)


def judge(files: tuple[Path, Path], placements: dict[int, tuple[str, list[int]]]) -> int:
    """Checks every placement in order and returns the allocated thousandths."""
    with files[0].open() as file:
        nodes = {
            r["node"]: Node(int(r["cpu_milli"]), int(r["memory_mib"]), r["model"], [1000] * int(r["gpu"]))
            for r in csv.DictReader(file)
        }
    with files[1].open() as file:
        rows = list(csv.DictReader(file))
    used = 0
    for row in rows:
        cpu, memory, devices, milli = (int(row[k]) for k in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"))
        pod = Pod(cpu, memory, devices, milli, row["gpu_spec"])
        placed = placements.get(int(row["seq"]))
        if placed is None:
            assert not any(map(pod.fits, nodes.values())), f"pod {row['seq']} would have fitted"
            continue
        node, taken = nodes[placed[0]], placed[1]
        assert pod.fits(node)
        assert len(set(taken)) == devices
        assert not devices or set(taken) <= pod.choices(node)
        node.cpu, node.memory = node.cpu - cpu, node.memory - memory
        for at in taken:
            node.free[at] -= milli
        used += devices * milli
    return used


@pytest.mark.parametrize("mix", ["known", "learned"])
def test_pack_places_pods_that_fit_and_refuses_only_others(files: tuple[Path, Path], mix: str) -> None:
    packing = script("packing")
    nodes, arrivals = packing.read_nodes(files[0]), packing.read_arrivals(files[1], packing.Strategy.PACK)

    placed, outcome = packing.run("small", nodes, arrivals, mix=mix)

    devices = {a.seq: (p.node, [int(uuid.rpartition("/")[2]) for uuid in p.devices]) for a, p in placed}
    assert judge(files, devices) > 0
    assert sum(outcome.refused.values()) == len(arrivals) - len(placed) > 0


def test_fgd_places_pods_that_fit_and_refuses_only_others(files: tuple[Path, Path]) -> None:
    rows, found = script("baselines/fgd").run(*files)

    assert judge(files, {int(s): (n, [int(d) for d in ds.split("|") if d]) for s, n, ds in rows}) > 0
    assert sum(found["refused"].values()) == 160 - len(rows)


def test_altered_mixes_are_drawn_up_to_the_load() -> None:
    mixes = script("mixes")
    pods = [(1, 1, 1, 1000, ""), (1, 1, 1, 500, ""), (1, 1, 0, 0, "")]

    drawn = list(mixes.drawn(pods, mixes.ALTERATIONS["shares-only"], 1, 10))

    assert {pod[3] for pod in drawn} == {0, 500}
    assert sum(pod[3] for pod in drawn) == 13_000


def test_optimum_is_at_least_the_allocation_of_any_rule() -> None:
    optimum = script("optimum")
    for asked in ([810, 470, 470, 320], [650, 650, 320, 320, 160, 810], [1000] * 5):
        best = optimum.most_allocated(asked)
        assert best >= optimum.packed(asked)
        assert best >= max(optimum.fitted(asked, tightest=True), optimum.fitted(asked, tightest=False))
    assert optimum.most_allocated([810, 470, 470, 320]) == 2070


def test_best_stays_within_the_optimum_and_serves_every_fleet_with_space() -> None:
    optimum = script("optimum")
    reached, placed = optimum.best_of_optimum(30, links=0.5)
    assert 0.98 < reached <= 1
    assert placed == 1
