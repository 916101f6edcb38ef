"""The state file that the C library reads: one fact per line, so that an editor or `sed` can change it.

    driver 580.95.05
    cuda 13000
    error 9                         every call fails with this NVML code (driver not loaded)
    delay_ms 200                    duration of initialization
    gpu 0                           the lines that follow are about GPU 0; indices count from 0
      uuid GPU-6f2c...
      name NVIDIA H100 80GB HBM3
      pci_bus_id 00000000:1B:00.0
      compute_capability 9.0
      temperature_celsius 41        any of `NUMBERS`; without the line not supported; `na` is the sentinel
      process 4711 5000 C           PID, MiB, C (compute) or G (graphics); on a partitioned GPU also the GPU instance
                                    `@70` at the end: its part of the utilization in percent
      mig 1 0 9984 13 1g.10gb MIG-0a1b...
                                    a MIG device: GPU and compute instance, MiB, MiB used, profile, UUID
      nvlink switch 18              links to an NVSwitch, or to the GPU with this index
      fail power_milliwatts 4       calls of a field, or `all`, fail with this NVML code
      delay all 3600000             calls of a field, or `all`, take this many milliseconds
      series series.txt loop 1764000000.0
    xid 1 0 79                      sequence, GPU, code; optionally GPU and compute instance
    event 2 0 16384 0               sequence, GPU, NVML's event type, data; optionally the instances

A series file has lines of `<offset in seconds> <number field>=<number> ...`, offsets increasing from 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from gpufleet_simgpu.model import (
    ALL,
    NOT_AVAILABLE,
    SWITCH,
    XID_EVENT,
    SimGpu,
    SimLinks,
    SimMig,
    SimNode,
    SimProcess,
    SimSeries,
    SimXid,
)

T = TypeVar("T", SimNode, SimGpu)

_TEXTS = ("uuid", "name", "pci_bus_id", "compute_capability", "serial")
_LISTS = ("processes", "migs", "links", "series", "fail", "delay")

NUMBERS = tuple(name for name in SimGpu.__dataclass_fields__ if name not in _TEXTS + _LISTS)
"""Fields that are a number."""

FIELDS = (*NUMBERS, *_TEXTS, "processes", "process_utilization", "nvlink", "events", "handle")
"""Fields that can fail or be delayed separately, besides `ALL`."""


class StateFormatError(ValueError):
    """A state that cannot be written, or a file that cannot be parsed."""


def render(node: SimNode) -> str:
    """Renders the node as the text of a state file.

    Raises:
        StateFormatError: The file format cannot represent a value.
    """
    return "".join(f"{line}\n" for line in _lines(node))


def parse(text: str) -> SimNode:
    """Parses the text of a state file.

    Raises:
        StateFormatError: The message contains the number of the line.
    """
    node = SimNode()
    gpus: list[SimGpu] = []
    for number, line in enumerate(text.splitlines(), start=1):
        key, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not key or key.startswith("#"):
            continue
        try:
            if key == "gpu":
                if int(rest) != len(gpus):
                    raise ValueError(f"must be GPU {len(gpus)}")
                gpus.append(SimGpu(uuid="", name="", pci_bus_id=""))
            elif key in {"xid", "event"}:
                node = replace(node, xids=(*node.xids, _event(rest, is_xid=key == "xid")))
            elif gpus:
                gpus[-1] = _with_line(gpus[-1], key, rest)
            elif key == "driver":
                node = replace(node, driver=rest)
            elif key in {"cuda", "error", "delay_ms"}:
                node = _with(node, key, int(rest))
            else:
                raise ValueError(f"unknown key `{key}`")
        except ValueError as error:
            raise StateFormatError(f"line {number}: {line.strip()}: {error}") from error
    return replace(node, gpus=tuple(gpus))


def _lines(node: SimNode) -> Iterator[str]:
    yield f"driver {_word(node.driver, 'driver')}"
    yield f"cuda {node.cuda}"
    for name in ("error", "delay_ms"):
        if getattr(node, name):
            yield f"{name} {getattr(node, name)}"
    for index, gpu in enumerate(node.gpus):
        yield f"gpu {index}"
        for line in _gpu_lines(gpu):
            yield f"  {line}"
    for xid in node.xids:
        instances = "" if xid.instances is None else f" {xid.instances[0]} {xid.instances[1]}"
        kind, of_type = ("xid", "") if xid.event_type == XID_EVENT else ("event", f" {xid.event_type}")
        yield f"{kind} {xid.sequence} {xid.gpu}{of_type} {xid.code}{instances}"


def _gpu_lines(gpu: SimGpu) -> Iterator[str]:
    for name in _TEXTS:
        text = getattr(gpu, name)
        if text is not None:
            yield f"{name} {_word(text, name)}"
    for name in NUMBERS:
        number = getattr(gpu, name)
        if number is not None:
            yield f"{name} {'na' if number == NOT_AVAILABLE else number}"
    for process in gpu.processes:
        memory = "na" if process.memory_mib == NOT_AVAILABLE else process.memory_mib
        instance = "" if process.gpu_instance is None else f" {process.gpu_instance}"
        part = "" if process.sm_percent is None else f" @{process.sm_percent}"
        yield f"process {process.pid} {memory} {process.kind}{instance}{part}"
    for mig in gpu.migs:
        numbers = f"{mig.gpu_instance} {mig.compute_instance} {mig.memory_total_mib} {mig.memory_used_mib}"
        yield f"mig {numbers} {_word(mig.profile, 'profile', spaces=False)} {_word(mig.uuid, 'uuid')}"
    for links in gpu.links:
        yield f"nvlink {links.to} {links.count}"
    yield from _per_field("fail", gpu.fail)
    yield from _per_field("delay", gpu.delay)
    if gpu.series is not None:
        mode = "loop" if gpu.series.loop else "hold"
        yield f"series {_word(gpu.series.path, 'series', spaces=False)} {mode} {gpu.series.start!r}"


def _per_field(key: str, values: Mapping[str, int]) -> Iterator[str]:
    for name, value in values.items():
        if name not in (ALL, *FIELDS):
            raise StateFormatError(f"{key}: unknown field `{name}`")
        yield f"{key} {name} {value}"


def _word(text: str, name: str, *, spaces: bool = True) -> str:
    clean = " ".join(text.split()) if spaces else "".join(text.split())
    if not text or clean != text:
        raise StateFormatError(f"{name}: {text!r} must fit on a line, without surrounding blanks")
    return text


def _with_line(gpu: SimGpu, key: str, rest: str) -> SimGpu:
    if key in _TEXTS:
        return _with(gpu, key, rest)
    if key in NUMBERS:
        return _with(gpu, key, _number(rest))
    words = rest.split()
    match key, words:
        case "process", [pid, memory, ("C" | "G") as kind, *more] if len(more) <= 2:  # noqa: PLR2004 - both are optional
            instance = [int(word) for word in more if not word.startswith("@")]
            part = [int(word[1:]) for word in more if word.startswith("@")]
            of_gpu, percent = next(iter(instance), None), next(iter(part), None)
            process = SimProcess(int(pid), _number(memory), kind, of_gpu, percent)
            return replace(gpu, processes=(*gpu.processes, process))
        case "mig", [gpu_instance, compute_instance, total, used, profile, uuid]:
            mig = SimMig(uuid, profile, int(gpu_instance), int(total), int(used), int(compute_instance))
            return replace(gpu, migs=(*gpu.migs, mig))
        case "nvlink", [to, count]:
            far_end = to if to == SWITCH else int(to)
            return replace(gpu, links=(*gpu.links, SimLinks(far_end, int(count))))
        case (("fail" | "delay"), [name, value]) if name in (ALL, *FIELDS):
            return _with(gpu, key, {**getattr(gpu, key), name: int(value)})
        case "series", [path, ("loop" | "hold") as mode, start]:
            return replace(gpu, series=SimSeries(path, float(start), loop=mode == "loop"))
        case _:
            raise ValueError("unknown or incomplete")


def _event(rest: str, *, is_xid: bool) -> SimXid:
    sequence, gpu, *others = map(int, rest.split())
    event_type = XID_EVENT if is_xid else others.pop(0)
    code, *instances = others
    if not instances:
        return SimXid(sequence, gpu, code, event_type=event_type)
    of_gpu, of_compute = instances
    return SimXid(sequence, gpu, code, (of_gpu, of_compute), event_type)


def _with(of: T, name: str, value: Any) -> T:
    """Returns `of` with the named field changed."""
    return replace(of, **{name: value})


def _number(word: str) -> int:
    return NOT_AVAILABLE if word == "na" else int(word)
