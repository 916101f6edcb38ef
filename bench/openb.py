"""The production trace as engine input, read by path: nodes, pods in order of arrival, and the mix that they form.

A device's thousandths stand as its memory in MiB, so that a share of 810 thousandths is exactly 810 of 1,000.
"""

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gpufleet_api.workload import Strategy
from gpufleet_operator.placement.model import DeviceNeeds, DeviceState, NodeState, PodNeeds, Request, Share
from gpufleet_operator.placement.packing import Mix, PodType

WHOLE = 1000
MIB = 2**20
_PODS_PER_NODE = 10_000  # the trace knows no limit


@dataclass(frozen=True, slots=True)
class Arrival:
    """One pod of the trace."""

    seq: int
    request: Request

    @property
    def milli(self) -> int:
        """Thousandths of devices that it asks for."""
        needs = self.request.devices
        return needs.count * (WHOLE if needs.share is None else needs.share.memory_mib)


def read_nodes(path: Path) -> tuple[NodeState, ...]:
    """Header: node, cpu_milli, memory_mib, gpu, model."""
    with _opened(path) as file:
        return tuple(
            NodeState(
                name=row["node"],
                devices=tuple(_device(row["node"], index, row["model"]) for index in range(int(row["gpu"]))),
                free_cpu_milli=int(row["cpu_milli"]),
                free_memory_bytes=int(row["memory_mib"]) * MIB,
                free_pods=_PODS_PER_NODE,
            )
            for row in csv.DictReader(file)
        )


def read_arrivals(path: Path, strategy: Strategy) -> tuple[Arrival, ...]:
    """Header: seq, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec. Pods that are alike share one request."""
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
    """The type of a pod of the trace."""
    return PodType.of(request, WHOLE)


def mix_of(arrivals: tuple[Arrival, ...]) -> Mix:
    """How often each kind of pod is asked for, without their order: what the published rules know as well."""
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
    pod = PodNeeds(cpu_milli=int(row["cpu_milli"]), memory_bytes=int(row["memory_mib"]) * MIB)
    return Request("trace/pod", (0,), DeviceNeeds(count, share, models=models), pod, strategy)


def _opened(path: Path) -> "TextIO":
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")
