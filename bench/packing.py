"""Packs a production trace pod by pod with the operator's engine and reports the allocated share of GPUs.

    uv run bench/packing.py --nodes N.csv --arrivals A.csv [B.csv ...] --strategy Pack [--out placements.csv]

Pods arrive in sequence and never leave. Each is placed on arrival, and a refused pod is not retried. The measure is the
published one: allocated GPUs in percent of capacity, averaged over the arrivals at which the arrived GPU demand rounds
to 100 % and to 130 % of capacity. --published FILE adds published figures for the same arrivals.

The mix of requests (the frequency of each kind of pod, not the order) is known in advance, as in the published rules.
With --mix learned it is learned from the arrivals, starting from a general prior, as in the operator. --mix both runs
and prints both; all other figures, and --out, are then of the known mix.

A device has 1,000 MiB of memory, one for each thousandth, so a share of 810 thousandths is exactly 810 MiB.
"""

import argparse
import csv
import gc
import gzip
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from gpufleet_api.workload_placement import Strategy
from gpufleet_common.units import BYTES_PER_MIB
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, Pick, PodNeeds, Request, Share
from gpufleet_operator.placement.packing import Mix, MixEstimator, PodType

WHOLE = 1000
_PODS_PER_NODE = 10_000  # the trace has no limit
COLUMNS = ("no GPU", "shared", "1 GPU", "2 GPU", "4 GPU", "8 GPU")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One pod of the trace."""

    seq: int
    request: Request

    @property
    def milli(self) -> int:
        """Returns the requested thousandths of devices."""
        needs = self.request.devices
        return needs.count * (WHOLE if needs.share is None else needs.share.memory_mib)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Allocations are in percent of capacity; decisions are per second of wall clock and of processor time."""

    arrivals: str
    pods: int
    allocated_at_100: float
    allocated_at_130: float
    first_refusal_at: float | None
    refused: dict[str, int]
    asked: dict[str, int]
    decisions_per_s: float
    decisions_per_cpu_s: float
    allocated_at_130_learned: float | None = None
    """With the learned mix; only for `--mix both`."""


def main() -> None:
    parser = _parser()
    args = parser.parse_args()
    if args.synthetic:
        with tempfile.TemporaryDirectory() as folder:
            nodes_file, arrivals_file = synthetic(Path(folder))
            _report(args, read_nodes(nodes_file), [arrivals_file])
        return
    if args.nodes is None or args.arrivals is None:
        parser.error("--nodes and --arrivals, or --synthetic, are required")
    _report(args, read_nodes(args.nodes), args.arrivals)


def _report(args: argparse.Namespace, nodes: Sequence[NodeState], files: Sequence[Path]) -> None:
    published = _published(args.published) if args.published else {}
    outcomes = []
    for path in files:
        arrivals = read_arrivals(path, Strategy(args.strategy))
        name = path.name.removesuffix(".csv.gz").removesuffix(".csv")
        placed, outcome = run(name, nodes, arrivals, mix="known" if args.mix == "both" else args.mix)
        if args.mix == "both":
            learned = run(name, nodes, arrivals, mix="learned")[1]
            outcome = replace(outcome, allocated_at_130_learned=learned.allocated_at_130)
        outcomes.append(outcome)
        if args.out:
            _write(args.out, placed)
        if not args.json:
            _print(outcome, published.get(outcome.arrivals, {}), heading=len(outcomes) == 1)
    if args.json:
        json.dump([asdict(outcome) for outcome in outcomes], sys.stdout)
        sys.stdout.write("\n")
    elif len(outcomes) > 1:
        _print_sums(outcomes, published)


def run(
    name: str, nodes: Sequence[NodeState], arrivals: tuple[Arrival, ...], *, mix: str
) -> tuple[list[tuple[Arrival, Pick]], Outcome]:
    """Places every arrival in order. Returns the placements and the outcome."""
    fleet, census, known = Fleet.of(nodes), MixEstimator(), mix_of(arrivals)
    capacity = sum(len(node.devices) for node in nodes) * WHOLE
    arrived = used = 0
    curve: list[tuple[int, float]] = []
    refused: Counter[str] = Counter()
    placed: list[tuple[Arrival, Pick]] = []
    first = None
    gc.collect()
    gc.freeze()  # excludes the input and objects of earlier files from the measurement
    began, began_cpu = time.perf_counter(), time.process_time()
    for arrival in arrivals:
        request = arrival.request
        decision = place(fleet, request, census.mix if mix == "learned" else known, explain=False)
        arrived += arrival.milli
        if mix == "learned":
            census.observe(pod_type(request))
        if decision.picks:
            pick = decision.picks[0]
            fleet.hold(pick.node, pick.devices, request.pod, request.devices.share)
            used += arrival.milli
            placed.append((arrival, pick))
        else:
            refused[size(arrival)] += 1
            first = round(100 * arrived / capacity, 1) if first is None else first
        curve.append((round(100 * arrived / capacity), 100 * used / capacity))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    asked = Counter(size(arrival) for arrival in arrivals)
    return placed, Outcome(
        name,
        len(arrivals),
        allocated_at(curve, 100),
        allocated_at(curve, 130),
        first,
        dict(refused),
        dict(asked),
        round(len(arrivals) / seconds, 1),
        round(len(arrivals) / cpu_seconds, 1),
    )


def read_nodes(path: Path) -> tuple[NodeState, ...]:
    """Returns the nodes of a file with the header node, cpu_milli, memory_mib, gpu, model."""
    with _opened(path) as file:
        return tuple(
            NodeState(
                name=row["node"],
                devices=tuple(_device(row["node"], index, row["model"]) for index in range(int(row["gpu"]))),
                free_cpu_milli=int(row["cpu_milli"]),
                free_memory_bytes=int(row["memory_mib"]) * BYTES_PER_MIB,
                free_pods=_PODS_PER_NODE,
            )
            for row in csv.DictReader(file)
        )


def read_arrivals(path: Path, strategy: Strategy) -> tuple[Arrival, ...]:
    """Returns the arrivals of a file; equal pods share one request.

    Header: seq, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec.
    """
    requests: dict[tuple[str, ...], Request] = {}
    arrivals = []
    with _opened(path) as file:
        for row in csv.DictReader(file):
            key = tuple(row[name] for name in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec"))
            if key not in requests:
                requests[key] = _request(row, strategy)
            arrivals.append(Arrival(int(row["seq"]), requests[key]))
    return tuple(arrivals)


def pod_type(request: Request) -> PodType:
    """Returns the type of a pod of the trace."""
    return PodType.of(request, WHOLE)


def mix_of(arrivals: tuple[Arrival, ...]) -> Mix:
    """Returns the frequency of each kind of pod, without the order; the published rules know it as well."""
    return Mix.of_types(pod_type(a.request) for a in arrivals)


def _device(node: str, index: int, model: str) -> DeviceState:
    return DeviceState(
        uuid=f"{node}/{index}",
        index=index,
        model=model,
        memory_total_mib=WHOLE,
        memory_used_mib=0,
        utilization_percent=0,
        temperature_celsius=None,
        sample_age_seconds=0.0,
    )


def _request(row: dict[str, str], strategy: Strategy) -> Request:
    count, milli = int(row["num_gpu"]), int(row["gpu_milli"])
    share = Share(memory_mib=milli) if count and milli < WHOLE else None
    models = frozenset(filter(None, row["gpu_spec"].split("|"))) if count else frozenset[str]()
    pod = PodNeeds(cpu_milli=int(row["cpu_milli"]), memory_bytes=int(row["memory_mib"]) * BYTES_PER_MIB)
    return Request("trace/pod", (0,), DeviceNeeds(count, share, models=models), pod, strategy)


def _opened(path: Path) -> TextIO:
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")


def size(arrival: Arrival) -> str:
    """Returns the class of a pod for the counts of refusals."""
    needs = arrival.request.devices
    if not needs.count:
        return "no GPU"
    return "shared" if needs.share is not None else f"{needs.count} GPU"


def allocated_at(curve: Iterable[tuple[int, float]], percent: int) -> float:
    """Returns the published measure: the mean over the arrivals at which `percent` of the demand had arrived."""
    near = [allocated for arrived, allocated in curve if arrived == percent]
    return round(sum(near) / len(near), 2) if near else float("nan")


def _write(path: Path, placed: Iterable[tuple[Arrival, Pick]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seq", "node", "devices"))
        for arrival, pick in placed:
            indices = sorted(int(uuid.rpartition("/")[2]) for uuid in pick.devices)
            writer.writerow((arrival.seq, pick.node, "|".join(map(str, indices))))


def _published(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["arrivals"]: row for row in csv.DictReader(file)}


def _print(outcome: Outcome, published: dict[str, str], *, heading: bool) -> None:
    rules = [key.removesuffix("@130") for key in published if key.endswith("@130")]
    both = outcome.allocated_at_130_learned is not None
    if heading:
        print("Allocated GPUs at 130 % of arrivals, %; decisions per second (of processor time); refused pods by size")
        others = "".join(f"{rule:>14}" for rule in (*rules, "gpufleet", *(["mix learned"] if both else [])))
        print(f"{'arrivals':<16}{others}  {'first refusal':>13}  {'decisions/s':>15}  refused of asked")
    figures = [*(float(published[f"{rule}@130"]) for rule in rules), outcome.allocated_at_130]
    figures += [] if outcome.allocated_at_130_learned is None else [outcome.allocated_at_130_learned]
    counts = [f"{c} {outcome.refused.get(c, 0)}/{outcome.asked[c]}" for c in COLUMNS if c in outcome.asked]
    counts += [f"{c} {n}/{outcome.asked[c]}" for c, n in outcome.refused.items() if c not in COLUMNS]
    first = "none" if outcome.first_refusal_at is None else f"{outcome.first_refusal_at} %"
    speed = f"{outcome.decisions_per_s:,.0f} ({outcome.decisions_per_cpu_s:,.0f})"
    allocated = "".join(f"{figure:>14.2f}" for figure in figures)
    print(f"{outcome.arrivals:<16}{allocated}  {first:>13}  {speed:>15}  {', '.join(counts)}", flush=True)


def _print_sums(outcomes: Sequence[Outcome], published: dict[str, dict[str, str]]) -> None:
    refused = sum(o.refused.get("8 GPU", 0) for o in outcomes)
    line = f"8-GPU pods refused over all files: {refused}"
    known = [int(published[o.arrivals]["FGD_refused_8gpu"]) for o in outcomes if o.arrivals in published]
    if len(known) == len(outcomes):
        line += f" (FGD: {sum(known)})"
    print(line)


def synthetic(folder: Path) -> tuple[Path, Path]:
    """Writes 1,200 nodes of five shapes, and pods of 90 kinds that request 130 % of the devices."""
    draw, nodes, arrivals = random.Random(7), folder / "nodes.csv", folder / "synthetic.csv"
    shapes = [(96_000, 393_216, 8)] * 50 + [(104_000, 524_288, 2)] * 34 + [(16_000, 122_880, 2)] * 9
    shapes += [(128_000, 786_432, 8)] * 3 + [(32_000, 131_072, 4)] * 4
    drawn = [draw.choice(shapes) for _ in range(1_200)]
    lines = [f"n{i:04},{cpu},{memory},{gpus},any" for i, (cpu, memory, gpus) in enumerate(drawn)]
    nodes.write_text("\n".join(["node,cpu_milli,memory_mib,gpu,model", *lines]))
    kinds = []
    for _ in range(90):
        gpus, milli = draw.choices(((0, 0), (1, WHOLE), (1, draw.choice((810, 470, 320, 230)))), (13, 48, 38))[0]
        if milli == WHOLE and draw.random() < 0.1:
            gpus = draw.choice((2, 4, 8))
        size = max(1, gpus)
        kinds.append(
            (size * draw.randrange(2_000, 12_000, 100), size * draw.randrange(4_096, 46_080, 512), gpus, milli)
        )
    weights = [draw.expovariate(1.0) / max(1, gpus) ** 2 for _, _, gpus, _ in kinds]
    asked, lines = 0, []
    while asked < 1.3 * WHOLE * sum(gpus for _, _, gpus in drawn):
        cpu, memory, gpus, milli = draw.choices(kinds, weights)[0]
        lines.append(f"{len(lines)},{cpu},{memory},{gpus},{milli},")
        asked += gpus * milli
    arrivals.write_text("\n".join(["seq,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec", *lines]))
    return nodes, arrivals


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, help="file of nodes: node, cpu_milli, memory_mib, gpu, model")
    parser.add_argument("--arrivals", type=Path, nargs="+", help="files of pods in order, .csv or .csv.gz")
    parser.add_argument("--strategy", choices=[s.value for s in Strategy], default=Strategy.PACK.value)
    parser.add_argument("--mix", choices=("known", "learned", "both"), default="known")
    parser.add_argument("--out", type=Path, help="write seq,node,devices of the placed pods (of the last file)")
    parser.add_argument("--published", type=Path, help="published figures by arrivals file, for comparison")
    parser.add_argument("--synthetic", action="store_true", help="use a synthetic fleet and mix")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    main()
