"""Measures `gpufleet` on recorded lists: processor time and wall clock of whole processes, lowest of some runs.

    uv run bench/command_line.py [--nodes 2,1000] [--repeats 5]

A program `kubectl` prints recorded lists, so the time of a cluster and of a real kubectl comes on top of the figures.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

FLEET = Path(__file__).parents[1] / "examples/fleets/mixed.yaml"
COMMANDS = (["--help"], ["top"], ["top", "-o", "json"], ["summary"], ["rank", "--limit", "3"])
KUBECTL = """#!/bin/sh
case "$*" in *gputelemetries*) cat '{folder}/telemetry' ;; *) echo '{{"items": []}}' ;; esac
"""


def main() -> None:
    """Prints a line for each command and number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="2,1000")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    for nodes in map(int, args.nodes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            record(Path(name), nodes)
            for command in COMMANDS:
                processor, wall = measure(Path(name), command, args.repeats)
                print(f"{nodes} nodes, gpufleet {' '.join(command)}: {processor:.2f} s processor, {wall:.2f} s wall")


def record(folder: Path, nodes: int) -> None:
    """Writes a program `kubectl` and the list of telemetry: the first node of the fleet, under many names."""
    first = json.dumps(_items()[0])
    items = [json.loads(first.replace("GPU-", f"GPU-{i:04}").replace("node-1", f"node-{i:04}")) for i in range(nodes)]
    (folder / "telemetry").write_text(json.dumps({"kind": "GPUTelemetryList", "items": items}))
    program = folder / "kubectl"
    program.write_text(KUBECTL.format(folder=folder))
    program.chmod(0o755)


def _items() -> list[Any]:
    documents = yaml.safe_load_all(FLEET.read_text(encoding="utf-8").replace("Z\n", "Z'\n").replace(": 20", ": '20"))
    return [item for body in documents for item in body.get("items", [body])]


def measure(folder: Path, command: list[str], repeats: int) -> tuple[float, float]:
    """Returns the lowest processor time, with that of child processes, and the lowest wall clock, in seconds."""
    program = Path(sys.executable).with_name("gpufleet")
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    found = []
    for _ in range(repeats):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
        done = subprocess.run(
            [program, *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        wall, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(f"gpufleet {' '.join(command)}: {done.stderr.decode()}")
        found.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    return min(processor for processor, _ in found), min(wall for _, wall in found)


if __name__ == "__main__":
    main()
