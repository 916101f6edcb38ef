"""Compares Pack with FGD on arrivals that were not used for tuning: other draws and mixes of a trace's pods.

    uv run bench/mixes.py --nodes N.csv --arrivals A.csv [B.csv ...] [--seeds 1 2] [--only same cpu-heavy] [--json]

For each file, alteration of its mix and seed, pods are drawn with replacement until they request 130 % of the devices.
bench/baselines/fgd.py, and bench/packing.py with a known mix and with a learned mix, place the same arrivals.
The output is the allocated share of GPUs at 130 % of arrivals in percent, and the refused pods of eight devices.
"""

import argparse
import csv
import gzip
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LOAD = 1.3
WHOLE = 1000
SCRIPTS = Path(__file__).parent

Kind = tuple[int, int, int, int, str]
"""cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec."""

HEADER = ("seq", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")


def _is_cpu(kind: Kind) -> bool:
    return not kind[2]


def _is_share(kind: Kind) -> bool:
    return bool(kind[2]) and kind[3] < WHOLE


ALTERATIONS: Mapping[str, Callable[[Kind], float]] = {
    "same": lambda _: 1.0,
    "cpu-heavy": lambda k: 1.9 if _is_cpu(k) else 1.0,
    "cpu-light": lambda k: 0.4 if _is_cpu(k) else 1.0,
    "shares-only": lambda k: 1.0 if _is_cpu(k) or _is_share(k) else 0.0,
    "shares-more": lambda k: 1.0 if _is_cpu(k) or _is_share(k) else 0.3,
    "shares-less": lambda k: 0.3 if _is_share(k) else 1.0,
    "picky": lambda k: 4.0 if k[4] else 1.0,
    "multi": lambda k: 2.0 if k[2] > 1 else 1.0,
    "multi-heavy": lambda k: 4.0 if k[2] > 1 else 1.0,
}
"""Alteration -> weight of a kind of pod relative to its frequency in the file."""


def read(path: Path) -> list[Kind]:
    """Returns the pods of a file in the format of bench/packing.py."""
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        return [
            (int(r["cpu_milli"]), int(r["memory_mib"]), int(r["num_gpu"]), int(r["gpu_milli"]), r["gpu_spec"])
            for r in csv.DictReader(file)
        ]


def drawn(pods: Sequence[Kind], weight: Callable[[Kind], float], seed: int, devices: int) -> Iterator[Kind]:
    """Yields pods until they request `LOAD` times the devices."""
    draw, counts = random.Random(seed), Counter(pods)
    weights = [count * weight(kind) for kind, count in counts.items()]
    asked = 0
    while asked < LOAD * WHOLE * devices:
        kind = draw.choices(list(counts), weights)[0]
        asked += kind[2] * kind[3]
        yield kind


def place(script: str, nodes: Path, arrivals: Path, *options: str) -> Any:
    """Runs one of the scripts and returns its figures."""
    command = [sys.executable, str(SCRIPTS / script), "--json", "--nodes", str(nodes), "--arrivals", str(arrivals)]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)[0]


def compare(nodes: Path, arrivals: Path) -> dict[str, Any]:
    """Returns the figures of FGD, of Pack with a known mix, and of Pack with a learned mix."""
    found = {
        "fgd": place("baselines/fgd.py", nodes, arrivals),
        "known": place("packing.py", nodes, arrivals),
        "learned": place("packing.py", nodes, arrivals, "--mix", "learned"),
    }
    allocated = {who: figures["allocated_at_130"] for who, figures in found.items()}
    return allocated | {f"{who}_refused_8": figures["refused"].get("8 GPU", 0) for who, figures in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, required=True, help="file in the format of bench/packing.py")
    parser.add_argument(
        "--arrivals", type=Path, nargs="+", required=True, help="files in the format of bench/packing.py"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="seeds of the draws (default: 1)")
    parser.add_argument(
        "--only", nargs="+", choices=list(ALTERATIONS), default=list(ALTERATIONS), help="alterations (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    with args.nodes.open(newline="") as file:
        devices = sum(int(row["gpu"]) for row in csv.DictReader(file))
    results = []
    if not args.json:
        print(f"{'arrivals':<30}{'FGD':>8}{'known':>8}{'learned':>9}   refused 8 GPU: FGD, known, learned")
    with tempfile.TemporaryDirectory() as folder:
        for path in args.arrivals:
            pods = read(path)
            for name, seed in ((a, s) for a in args.only for s in args.seeds):
                file = Path(folder) / "drawn.csv"
                rows = [(at, *kind) for at, kind in enumerate(drawn(pods, ALTERATIONS[name], seed, devices))]
                file.write_text("\n".join(",".join(map(str, row)) for row in (HEADER, *rows)))
                found = {"arrivals": f"{path.name.partition('.csv')[0]} {name} {seed}"} | compare(args.nodes, file)
                results.append(found)
                if not args.json:
                    refused = ", ".join(str(found[f"{who}_refused_8"]) for who in ("fgd", "known", "learned"))
                    figures = f"{found['fgd']:>8.2f}{found['known']:>8.2f}{found['learned']:>9.2f}"
                    print(f"{found['arrivals']:<30}{figures}   {refused}", flush=True)
    if args.json:
        json.dump(results, sys.stdout)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
