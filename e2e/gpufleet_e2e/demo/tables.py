"""Tables of evidence. Pure: the same evidence gives the same table."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.table import Table
from rich.text import Text

from gpufleet_e2e.demo.terminal import StepTime
from gpufleet_e2e.proof import FleetEvidence, Gpu, ReplicaEvidence, Source, Statement, WorkloadEvidence, compare_shards
from gpufleet_e2e.proof.compare import compare_replica

WIDE = 96
"""Minimum columns for full names of models and pods, including the pods' random suffix."""

UUID_DIGITS = 8
BEFORE_HOLDER = 62
"""Columns left of the fleet table's holder with short model names, including the indent."""
MIB_PER_GIB = 1024
TOTAL = "total"
"""The term of a score that is the sum of the others."""
HOT_CELSIUS = 80
BUSY_PERCENT = 50

COLUMNS: Mapping[Source, str] = {
    Source.STATUS: "picked",
    Source.RESERVATION: "reserved",
    Source.ANNOTATION: "annot.",
    Source.ENVIRONMENT: "env",
    Source.POD_RESOURCES: "kubelet",
    Source.POD_STATUS: "pod",
    Source.CLAIM: "claim",
}

LEGEND: Mapping[Source, str] = {
    Source.STATUS: "status.placements of the GPUWorkload: the operator's pick",
    Source.RESERVATION: "spec.assignments of the node's GPUTelemetry: its reservation",
    Source.ANNOTATION: "annotation of the pod",
    Source.ENVIRONMENT: "NVIDIA_VISIBLE_DEVICES in the container, by kubectl exec",
    Source.POD_RESOURCES: "the kubelet's PodResources API on the node",
    Source.POD_STATUS: "allocatedResourcesStatus in the pod's status, by the kubelet",
    Source.CLAIM: "the pod's ResourceClaim, allocated by kube-scheduler",
}
"""Explains each column of `proof_table`."""

RANDOM_END = re.compile(r"(?<=-\d)-[a-z0-9]{6}$")
"""The random suffix of a replica's pod name."""

Namer = Callable[[str], str]
"""Shortens a device's UUID."""


def namer(uuids: Iterable[str]) -> Namer:
    """Returns a function that shortens these UUIDs to the fewest unique digits, at least eight, without `GPU-`."""
    tails = sorted({_bare(uuid) for uuid in uuids})
    digits = UUID_DIGITS
    while len({tail[:digits] for tail in tails}) < len(tails):
        digits += 1
    return lambda uuid: _bare(uuid)[:digits]


def _bare(uuid: str) -> str:
    return uuid.removeprefix("GPU-")


def fleet_table(fleet: FleetEvidence, width: int, *, home: str = "", mark: str = "") -> Table:
    """Builds a table of every GPU with its telemetry and its holder as reported by the kubelet.

    Args:
        fleet: The evidence.
        width: Columns of the terminal.
        home: A namespace that is omitted from pod names.
        mark: A UUID to mark.
    """
    table = _table()
    table.add_column("node", no_wrap=True)
    table.add_column("GPU", justify="right", no_wrap=True)
    table.add_column("UUID", no_wrap=True)
    table.add_column("model", no_wrap=True)
    for title in ("used GiB", "util", "temp", "power"):
        table.add_column(title, justify="right", no_wrap=True)
    # The only column that shrinks: otherwise rich would cut every column, and numbers would be unreadable.
    table.add_column("held by", no_wrap=True, overflow="ellipsis", max_width=max(8, width - BEFORE_HOLDER))
    short = namer(gpu.uuid for gpu in fleet.gpus)
    for node, gpus in groupby(fleet.gpus, key=lambda gpu: gpu.node):
        for number, gpu in enumerate(gpus):
            holders = list(dict.fromkeys(f"{one.namespace}/{one.pod}" for one in fleet.holders(gpu.uuid)))
            table.add_row(
                node if number == 0 else "",
                f"{'> ' if gpu.uuid == mark else ''}{gpu.index}",
                short(gpu.uuid),
                _model(gpu.model, full=width >= WIDE),
                _memory(gpu),
                _measure(gpu.utilization_percent, "%", BUSY_PERCENT),
                _measure(gpu.temperature_celsius, " C", HOT_CELSIUS),
                _measure(gpu.power_milliwatts and gpu.power_milliwatts // 1000, " W"),
                _holder(gpu, _held_by(holders, home, full=width >= WIDE)),
            )
        table.add_section()
    return table


def _model(name: str, *, full: bool) -> str:
    words = name.removeprefix("NVIDIA ").removeprefix("Tesla ")
    return words if full else words.split("-")[0].split(" ")[0]


def _held_by(pods: Sequence[str], home: str, *, full: bool) -> str:
    if len(pods) > 1:
        return f"shared by {len(pods)}"
    return _short(pods[0], home, full=full) if pods else ""


def _short(pod: str, home: str, *, full: bool) -> str:
    name = pod.removeprefix(f"{home}/")
    return name if full else RANDOM_END.sub("", name)


def _memory(gpu: Gpu) -> str:
    if gpu.memory_used_mib is None or gpu.memory_total_mib is None:
        return "-"
    return f"{gpu.memory_used_mib / MIB_PER_GIB:.1f} / {gpu.memory_total_mib / MIB_PER_GIB:.0f}"


def _measure(value: int | None, unit: str, alarm: int | None = None) -> Text:
    if value is None:
        return Text("-")
    return Text(f"{value}{unit}", "red" if alarm is not None and value >= alarm else "")


def _holder(gpu: Gpu, holder: str) -> Text:
    return Text(holder or "free", "bold" if holder else "dim") if gpu.healthy else Text("UNHEALTHY", "bold red")


def legend_table(sources: Sequence[Source]) -> Table:
    """Builds a table that explains the columns of `proof_table`."""
    table = _table()
    table.show_header = False
    for source in sources:
        table.add_row(COLUMNS[source], LEGEND[source])
    return table


def proof_table(workload: WorkloadEvidence, fleet: FleetEvidence) -> Table:
    """Builds a table with a row per replica: the devices of each source, and whether all agree."""
    table = _table(title=f"{workload.title}: device UUIDs (first digits) by source")
    table.add_column("#", justify="right")
    table.add_column("node", no_wrap=True)
    sources = workload.sources
    for source in sources:
        table.add_column(COLUMNS[source], no_wrap=True)
    table.add_column("agree?", no_wrap=True)
    short = namer(gpu.uuid for gpu in fleet.gpus)
    for replica in workload.replicas:
        wrong = compare_replica(replica, sources)
        cells = [_cell(replica.says.get(source), short, bad=source in wrong) for source in sources]
        if sources[-1:] == (Source.CLAIM,) and Source.CLAIM not in replica.says:
            cells[-1] = Text("-")
        table.add_row(str(replica.replica), replica.node, *cells, _verdict(not wrong and bool(replica.picked)))
    return table


def number_of(sources: Sequence[Source]) -> str:
    """Returns how many sources must agree, as a word."""
    return {5: "five", 6: "six", 7: "seven"}[len(sources)]


def _cell(statement: Statement | None, short: Namer, *, bad: bool) -> Text:
    if statement is None or statement.devices is None:
        return Text("nothing", "red")
    return Text("\n".join(short(uuid) for uuid in statement.devices) or "none", "red" if bad else "")


def _verdict(good: bool) -> Text:
    return Text("yes", "bold green") if good else Text("NO", "bold red")


def shard_table(workload: WorkloadEvidence) -> Table:
    """Builds a table of a distribution's shards and the line that each container printed."""
    table = _table(title=f"{workload.title}: {workload.items or 0:,} items, {workload.unassigned_items:,} unassigned")
    table.add_column("replica", justify="right")
    for title in ("start", "end", "items", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("the container printed", overflow="fold")
    table.add_column("agree?", no_wrap=True)
    wrong = {problem.subject for problem in compare_shards(workload)}
    for replica in workload.replicas:
        start, end = replica.shard.status or (0, 0)
        ratio = f"{(end - start) / workload.items:.1%}" if workload.items else "-"
        subject = f"{workload.title}[{replica.replica}]"
        table.add_row(
            str(replica.replica),
            f"{start:,}",
            f"{end:,}",
            f"{end - start:,}",
            ratio,
            replica.shard.log_line or "nothing",
            _verdict(subject not in wrong and workload.title not in wrong),
        )
    return table


def sharing_table(workloads: Sequence[WorkloadEvidence], fleet: FleetEvidence) -> Table:
    """Builds a table of shared devices, with the kubelet's slots and the promised memory of each source."""
    table = _table(title="promised memory of the device in MiB, by source")
    for title in ("pod", "device", "slot"):
        table.add_column(title, no_wrap=True)
    for title in ("requested", "reserved", "env"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("agree?", no_wrap=True)
    short = namer(gpu.uuid for gpu in fleet.gpus)
    for workload in workloads:
        for replica in workload.replicas:
            promised = [replica.promised_mib.get(source) for source in (Source.RESERVATION, Source.ENVIRONMENT)]
            ids = [device for one in fleet.holdings if one.pod == replica.pod for device in one.devices]
            table.add_row(
                _short(replica.pod, "", full=False),
                "\n".join(short(uuid) for uuid in replica.picked),
                "\n".join(device_id.partition("::")[2] or "whole" for device_id in ids) or "none",
                *("-" if mib is None else f"{mib:,}" for mib in (workload.memory_mib, *promised)),
                _verdict({*promised} == {workload.memory_mib} and not compare_replica(replica, workload.sources)),
            )
    return table


def score_table(picks: Sequence[tuple[str, ReplicaEvidence]], fleet: FleetEvidence) -> Table:
    """Builds a table of the score terms of each labeled pick, in thousandths."""
    found = dict.fromkeys(term for _, replica in picks for term in replica.score)
    terms = sorted(found, key=lambda term: term == TOTAL)
    table = _table()
    for title in ("", "node", "GPU"):
        table.add_column(title, no_wrap=True)
    for term in terms:
        table.add_column(term, justify="right", no_wrap=True)
    for label, replica in picks:
        gpus = [gpu for uuid in replica.picked if (gpu := fleet.gpu(uuid))]
        table.add_row(
            label,
            replica.node,
            " ".join(str(gpu.index) for gpu in gpus),
            *(str(replica.score.get(term, "-")) for term in terms),
        )
    return table


def counted(number: int, thing: str) -> str:
    """`1 device`, `2 devices`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def times_table(times: Sequence[StepTime], total_seconds: float) -> Table:
    """Builds a table of step durations."""
    table = _table()
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for number, one in enumerate(times, 1):
        table.add_row(f"{number} {one.title}", f"{one.seconds:.1f}")
    table.add_section()
    table.add_row("total", f"{total_seconds:.1f}")
    return table


def _table(title: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
