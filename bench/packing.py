"""Packs a production trace pod by pod with the engine that the operator runs, and says how well.

    uv run bench/packing.py --nodes N.csv --arrivals A.csv [B.csv ...] --strategy Pack [--out placements.csv]

Pods arrive one after the other and never leave; each is placed when it arrives, and a refused one isn't tried again.
The measure is the published one: GPU allocated, in percent of capacity, averaged over the arrivals at which the
arrived GPU demand rounds to 100 % and to 130 % of capacity. With --published FILE the figures that others reached
on the same arrivals stand beside ours.

The mix of requests is known beforehand (how often each kind of pod is asked for, not in which order), as it is for
the published rules; with --mix learned it is learned from the arrivals as they come, starting from a general prior.
"""

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openb import WHOLE, Arrival, mix_of, pod_type, read_arrivals, read_nodes

from gpufleet_api.workload import Strategy
from gpufleet_operator.placement import Fleet, place
from gpufleet_operator.placement.model import NodeState, Pick
from gpufleet_operator.placement.packing import Census

COLUMNS = ("no GPU", "shared", "1 GPU", "2 GPU", "4 GPU", "8 GPU")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. Allocations in percent of capacity, `decisions_per_s` by the wall clock."""

    arrivals: str
    pods: int
    allocated_at_100: float
    allocated_at_130: float
    first_refusal_at: float | None
    refused: dict[str, int]
    asked: dict[str, int]
    decisions_per_s: float


def main() -> None:
    """Run what the command line says."""
    args = _parser().parse_args()
    nodes = read_nodes(args.nodes)
    published = _published(args.published) if args.published else {}
    outcomes = []
    for path in args.arrivals:
        arrivals = read_arrivals(path, Strategy(args.strategy))
        placed, outcome = run(path.name.removesuffix(".csv.gz").removesuffix(".csv"), nodes, arrivals, mix=args.mix)
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
    name: str, nodes: Sequence[NodeState], arrivals: Sequence[Arrival], *, mix: str
) -> tuple[list[tuple[Arrival, Pick]], Outcome]:
    """Place every arrival in turn: what was placed where, and how it went."""
    fleet, census, known = Fleet.of(nodes), Census(), mix_of(arrivals)
    capacity = sum(len(node.devices) for node in nodes) * WHOLE
    arrived = used = 0
    curve: list[tuple[int, float]] = []
    refused: Counter[str] = Counter()
    placed: list[tuple[Arrival, Pick]] = []
    first = None
    began = time.perf_counter()
    for arrival in arrivals:
        request = arrival.request
        decision = place(fleet, request, census.mix if mix == "learned" else known)
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
    seconds = time.perf_counter() - began
    asked = Counter(size(arrival) for arrival in arrivals)
    return placed, Outcome(
        name,
        len(arrivals),
        _at(curve, 100),
        _at(curve, 130),
        first,
        dict(refused),
        dict(asked),
        round(len(arrivals) / seconds, 1),
    )


def size(arrival: Arrival) -> str:
    """The class of a pod in the counts of refusals."""
    needs = arrival.request.devices
    if not needs.count:
        return "no GPU"
    return "shared" if needs.share is not None else f"{needs.count} GPU"


def _at(curve: Iterable[tuple[int, float]], percent: int) -> float:
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
    if heading:
        print("GPU allocated at 130 % of arrivals, in percent; refused pods by size")
        others = "".join(f"{rule:>14}" for rule in rules)
        print(f"{'arrivals':<16}{others}{'gpufleet':>10}  {'first refusal':>13}  {'decisions/s':>11}  refused of asked")
    others = "".join(f"{published[f'{rule}@130']:>14}" for rule in rules)
    counts = [f"{c} {outcome.refused.get(c, 0)}/{outcome.asked[c]}" for c in COLUMNS if c in outcome.asked]
    counts += [f"{c} {n}/{outcome.asked[c]}" for c, n in outcome.refused.items() if c not in COLUMNS]
    first = "none" if outcome.first_refusal_at is None else f"{outcome.first_refusal_at} %"
    print(
        f"{outcome.arrivals:<16}{others}{outcome.allocated_at_130:>10.2f}  {first:>13}  "
        f"{outcome.decisions_per_s:>11,.0f}  {', '.join(counts)}",
        flush=True,
    )


def _print_sums(outcomes: Sequence[Outcome], published: dict[str, dict[str, str]]) -> None:
    refused = sum(o.refused.get("8 GPU", 0) for o in outcomes)
    line = f"8-GPU pods refused over all files: {refused}"
    known = [int(published[o.arrivals]["FGD_refused_8gpu"]) for o in outcomes if o.arrivals in published]
    if len(known) == len(outcomes):
        line += f" (FGD: {sum(known)})"
    print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, required=True, help="node, cpu_milli, memory_mib, gpu, model")
    parser.add_argument("--arrivals", type=Path, required=True, nargs="+", help="pods in order, .csv or .csv.gz")
    parser.add_argument("--strategy", choices=[s.value for s in Strategy], default=Strategy.PACK.value)
    parser.add_argument("--mix", choices=("known", "learned"), default="known")
    parser.add_argument("--out", type=Path, help="write seq,node,devices of the pods placed (of the last file)")
    parser.add_argument("--published", type=Path, help="others' figures by arrivals file, to print beside ours")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    main()
