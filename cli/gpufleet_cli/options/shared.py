"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from gpufleet_api.names import FORBIDDEN_RESOURCES, RESOURCE, SCHEDULERS, STALE_AFTER_SECONDS, TOLERATED_TAINTS
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.options.parsers import choice, integer, seconds

FLEET_PANEL = "Fleet"
_REQUEST_PANEL = "Request"
_WHAT_IF_PANEL = "What if"

Manifests: TypeAlias = Annotated[
    list[Path],
    typer.Option(
        "--filename",
        "-f",
        metavar="FILE",
        help="Manifest with GPUWorkloads; '-' is stdin. Repeatable.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
OptionalManifests: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--filename",
        "-f",
        metavar="FILE",
        help="Manifest with a GPUWorkload; '-' is stdin. The default is a request for one healthy, free GPU.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
WorkloadName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--workload",
        metavar="[NAMESPACE/]NAME",
        help="The workload to check, when the manifests have several.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
MinFreeMemory: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--min-free-memory",
        metavar="MIB",
        parser=integer("--min-free-memory", 0),
        help="Minimum free memory of each GPU, in MiB, instead of a manifest.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
Resource: TypeAlias = Annotated[
    str,
    typer.Option(
        "--resource",
        metavar="NAME",
        help="Extended resource for whole GPUs, as the operator is configured.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
DEFAULT_RESOURCE = RESOURCE

Schedulers: TypeAlias = Annotated[
    str,
    typer.Option(
        "--schedulers",
        metavar="NAMES",
        help="Schedulers that a template may name, as the operator's flag.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
ForbiddenResources: TypeAlias = Annotated[
    str,
    typer.Option(
        "--forbidden-resources",
        metavar="PATTERNS",
        help="Resources of other device plugins that a template may not request, as the operator's flag.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
TolerateTaints: TypeAlias = Annotated[
    str,
    typer.Option(
        "--tolerate-taints",
        metavar="KEYS",
        help="Keys of NoSchedule taints that the pods of workloads tolerate, as the operator's flag.",
        rich_help_panel=_REQUEST_PANEL,
    ),
]
DEFAULT_SCHEDULERS = ",".join(SCHEDULERS)
DEFAULT_FORBIDDEN_RESOURCES = ",".join(FORBIDDEN_RESOURCES)
DEFAULT_TOLERATE_TAINTS = ",".join(TOLERATED_TAINTS)

Now: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--now",
        metavar="TIME",
        help="Time to measure the age of saved telemetry at, such as 2026-01-02T03:04:05Z. It is ignored by default. "
        "Renewals of the agents' Leases count as well, if these were saved.",
        rich_help_panel=FLEET_PANEL,
    ),
]
StaleAfter: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--stale-after",
        metavar="SECONDS",
        parser=seconds("--stale-after"),
        help="Age in seconds after which telemetry is not used; with --from, at --now or the present time. "
        f"The operator's default is {STALE_AFTER_SECONDS:.0f}.",
        rich_help_panel=FLEET_PANEL,
    ),
]

Without: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="NODE|UUID",
        help="Decide as if this node or GPU did not exist. Repeatable.",
        rich_help_panel=_WHAT_IF_PANEL,
    ),
]
Free: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--free",
        metavar="UUID",
        help="Decide as if this GPU were not in use. Repeatable.",
        rich_help_panel=_WHAT_IF_PANEL,
    ),
]
Save: TypeAlias = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", help="Write the decisions and their input to this file, for replay."),
]
Preempt: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--preempt",
        metavar="",
        help="Propose pods of lower priority whose eviction would make room for unplaced replicas.",
    ),
]
DecisionFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", help="File written by `gpufleet simulate --save`.")
]

Nodes: TypeAlias = Annotated[
    list[str] | None, typer.Option("--node", metavar="NAME", help="Only GPUs of this node. Repeatable.")
]
Limit: TypeAlias = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", parser=integer("--limit", 1), help="Maximum number of GPUs to print."),
]
Output: TypeAlias = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        parser=choice("--output", OutputFormat),
        help=f"Format of the result: {', '.join(OutputFormat)}.",
    ),
]
NoHeaders: TypeAlias = Annotated[
    bool, typer.Option("--no-headers", metavar="", help="Print tables without header and totals.")
]
Watch: TypeAlias = Annotated[
    bool, typer.Option("--watch", "-w", metavar="", help="Print again every two seconds, until Ctrl-C.")
]
