"""GPUs and who uses them, as tables."""

from collections import Counter
from collections.abc import Iterable, Sequence

from gpufleet_cli.output.terminal import Column, Screen
from gpufleet_cli.view.gpu_view import GPUView, PodUse


def gpus(screen: Screen, found: Sequence[GPUView], *, wide: bool) -> None:
    """Prints one line per GPU, and the totals."""
    columns = [
        Column("NODE", firm=True),
        Column("GPU", number=True),
        Column("MODEL", spare=5, firm=True),
        Column("USED-MIB", number=True),
        Column("TOTAL-MIB", number=True, spare=2),
        Column("UTIL%", number=True),
        Column("TEMP-C", number=True, spare=1),
        Column("WATTS", number=True, spare=3),
        Column("STATUS", firm=True),
        Column("HELD-BY"),
    ]
    rows = [_row(gpu) for gpu in found]
    if wide:
        columns = [*columns, Column("UUID", firm=True), Column("PROCESSES", number=True), Column("MESSAGE")]
        rows = [
            [*row, gpu.uuid, _text(gpu.process_count), gpu.detail or "-"] for row, gpu in zip(rows, found, strict=True)
        ]
    screen.table(columns, rows)
    if screen.headers and found:
        screen.line(totals(found))


def totals(found: Sequence[GPUView]) -> str:
    """Returns `16 GPUs on 2 nodes: 11 Free, 5 InUse`."""
    counts = Counter(gpu.state for gpu in found)
    nodes = len({gpu.node for gpu in found})
    listed = ", ".join(f"{number:,} {state}" for state, number in sorted(counts.items(), key=lambda c: (-c[1], c[0])))
    gpus_, nodes_ = "GPU" if len(found) == 1 else "GPUs", "node" if nodes == 1 else "nodes"
    return f"{len(found):,} {gpus_} on {nodes:,} {nodes_}: {listed}"


def holders(screen: Screen, found: Sequence[tuple[GPUView, PodUse | None]]) -> None:
    """Prints one line per GPU and pod."""
    columns = (
        Column("NODE", firm=True),
        Column("GPU", number=True),
        Column("UUID", firm=True),
        Column("STATUS", firm=True),
        Column("NAMESPACE", firm=True),
        Column("POD", firm=True),
        Column("CONTAINER", spare=2),
        Column("WORKLOAD", firm=True),
        Column("REPLICA", number=True, spare=1),
        Column("SHARE", spare=1),
    )
    screen.table(columns, [_use_row(gpu, use) for gpu, use in found])


def _row(gpu: GPUView) -> list[str]:
    watts = None if gpu.power_milliwatts is None else round(gpu.power_milliwatts / 1000)
    return [
        gpu.node,
        str(gpu.index),
        gpu.model,
        *map(
            _text, (gpu.memory_used_mib, gpu.memory_total_mib, gpu.utilization_percent, gpu.temperature_celsius, watts)
        ),
        gpu.state,
        _held_by(gpu.uses) or "-",
    ]


def _held_by(uses: Iterable[PodUse]) -> str:
    return ", ".join(f"{use.namespace}/{use.pod}{'' if use.held else ' (reserved)'}" for use in uses)


def _use_row(gpu: GPUView, use: PodUse | None) -> list[str]:
    place = [gpu.node, str(gpu.index), gpu.uuid]
    if use is None:
        return [*place, gpu.state, *["-"] * 6]
    state = "Terminating" if use.terminating else "Holds" if use.held else "Reserved"
    replica = "-" if use.replica is None else str(use.replica)
    return [*place, state, use.namespace, use.pod, use.container, use.workload or "-", replica, _share(use)]


def _share(use: PodUse) -> str:
    if use.memory_mib is None:
        return "slot" if use.shared else "whole"
    compute = f", {use.compute_percent} %" if use.compute_percent is not None else ""
    over = f" (uses {use.overuse_mib:,})" if use.overuse_mib is not None else ""
    return f"{use.memory_mib:,} MiB{compute}{over}"


def _text(value: int | None) -> str:
    return "-" if value is None else str(value)
