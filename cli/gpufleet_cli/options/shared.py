"""Options that several commands share, declared once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from gpufleet_api.names import RESOURCE
from gpufleet_cli.options.parsers import seconds, whole


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


class By(StrEnum):
    """What the capacity of a GPU is, for `distribute`."""

    FREE_MEMORY = "FreeMemory"
    TOTAL_MEMORY = "TotalMemory"
    UNIFORM = "Uniform"


_SOURCES = "Fleet"
_REQUEST = "Request"

Files: TypeAlias = Annotated[
    list[Path],
    typer.Option(
        "--filename",
        "-f",
        metavar="FILE",
        help="Manifest with GPUWorkloads; '-' is stdin. Repeatable.",
        rich_help_panel=_REQUEST,
    ),
]
MaybeFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--filename",
        "-f",
        metavar="FILE",
        help="Manifest with a GPUWorkload; '-' is stdin. Without it: one healthy, free GPU.",
        rich_help_panel=_REQUEST,
    ),
]
WorkloadName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--workload",
        metavar="[NAMESPACE/]NAME",
        help="Which one, when the manifests hold several.",
        rich_help_panel=_REQUEST,
    ),
]
MinFreeMemory: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--min-free-memory",
        metavar="MIB",
        parser=whole("--min-free-memory", 0),
        help="Memory that must be free on each GPU, instead of a manifest.",
        rich_help_panel=_REQUEST,
    ),
]
Resource: TypeAlias = Annotated[
    str,
    typer.Option(
        "--resource",
        metavar="NAME",
        help="Extended resource that stands for whole GPUs, as the operator has it.",
        rich_help_panel=_REQUEST,
    ),
]
DEFAULT_RESOURCE = RESOURCE

FleetFiles: TypeAlias = Annotated[
    list[Path],
    typer.Option(
        "--fleet",
        metavar="FILE",
        help="What `kubectl get gputelemetries -o yaml` prints; '-' is stdin. Repeatable.",
        rich_help_panel=_SOURCES,
    ),
]
MaybeFleetFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--fleet",
        metavar="FILE",
        help="What `kubectl get gputelemetries -o yaml` prints; '-' is stdin. Repeatable.",
        rich_help_panel=_SOURCES,
    ),
]
NodeFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--nodes",
        metavar="FILE",
        help="What `kubectl get nodes -o yaml` prints: labels, taints, room for CPU and memory.",
        rich_help_panel=_SOURCES,
    ),
]
PodFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--pods",
        metavar="FILE",
        help="What `kubectl get pods -A -o yaml` prints: what is taken of that room.",
        rich_help_panel=_SOURCES,
    ),
]
Now: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--now",
        metavar="TIME",
        help="Judge the telemetry's age at this time, such as 2026-01-02T03:04:05Z; by default it is ignored.",
        rich_help_panel=_SOURCES,
    ),
]
StaleAfter: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--stale-after",
        metavar="SECONDS",
        parser=seconds("--stale-after"),
        help="Judge the telemetry's age (at --now, or now): older isn't used. The operator has 90.",
        rich_help_panel=_SOURCES,
    ),
]

_WHAT_IF = "What if"

Without: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="NODE|UUID",
        help="As if this node or GPU were away. Repeatable.",
        rich_help_panel=_WHAT_IF,
    ),
]
Free: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--free", metavar="UUID", help="As if nobody held or used this GPU. Repeatable.", rich_help_panel=_WHAT_IF
    ),
]
Save: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--save", metavar="FILE", help="Write the decisions with all that they were made from, for gpufleet replay."
    ),
]
Saved: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="What gpufleet simulate --save wrote.")]

OnlyNodes: TypeAlias = Annotated[
    list[str] | None, typer.Option("--node", metavar="NAME", help="Only GPUs of this node. Repeatable.")
]
Limit: TypeAlias = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", parser=whole("--limit", 1), help="Print no more than this many GPUs."),
]
Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
