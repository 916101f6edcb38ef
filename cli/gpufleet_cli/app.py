"""The commands and their options. Each command imports its implementation when it runs, so that `--help` is fast."""

from typing import Annotated

import typer

from gpufleet_cli.options import shared as opt
from gpufleet_cli.options.choices import DeviceCapacity, OutputFormat
from gpufleet_cli.options.command_group import Command, CommandGroup
from gpufleet_cli.options.parsers import choice, integer

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Shows where GPUWorkloads would be placed, and why or why not.

    Runs the operator's engine on a saved fleet, without a cluster or a GPU. A fleet file is the output of
    `kubectl get gputelemetries -o yaml`.""",
    epilog="Exit codes: 0 success; 1 not everything is placed (replay: a decision differs); 2 bad input; "
    "130 interrupted.",
)


@app.command(cls=Command, epilog="Example: gpufleet simulate -f examples/gang.yaml --fleet examples/fleets/mixed.yaml")
def simulate(
    *,
    files: opt.Manifests,
    fleet: opt.Fleet,
    nodes: opt.NodeFiles = None,
    pods: opt.PodFiles = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    schedulers: opt.Schedulers = opt.DEFAULT_SCHEDULERS,
    foreign_resources: opt.ForeignResources = opt.DEFAULT_FOREIGN_RESOURCES,
    tolerate_taints: opt.TolerateTaints = opt.DEFAULT_TOLERATE_TAINTS,
    without: opt.Without = None,
    free: opt.Free = None,
    save: opt.Save = None,
    output: opt.Output = OutputFormat.TABLE,
) -> None:
    """Place workloads on a saved fleet, and explain what is not placed.

    The workloads are placed in order, and each one reduces what the next ones can get. SCORE is the weighted mean
    of the terms next to it, 0 to 1 each (1 is best): free memory, unused compute, low temperature and power headroom
    of the replica's GPUs. The status of a GPUWorkload has the same values in thousandths.
    """
    from gpufleet_cli.commands import simulate as command  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import cluster_rules, edits, fleet_files  # noqa: PLC0415 - as above

    sources = fleet_files(fleet, nodes, pods, now, stale_after)
    rules = cluster_rules(resource, schedulers, foreign_resources, tolerate_taints)
    raise typer.Exit(command.simulate(files, sources, rules, edits=edits(without, free), save=save, output=output))


@app.command(cls=Command, epilog="Example: gpufleet replay decisions.jsonl --without node-1")
def replay(
    *,
    file: opt.DecisionFile,
    without: opt.Without = None,
    free: opt.Free = None,
    output: opt.Output = OutputFormat.TABLE,
) -> None:
    """Repeat saved decisions and compare them byte for byte, or make them on an edited fleet.

    Exits with 0 when all decisions are the same or, on an edited fleet, when everything is placed; else with 1.
    """
    from gpufleet_cli.commands import replay as command  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import edits  # noqa: PLC0415 - as above

    raise typer.Exit(command.replay(file, edits(without, free), output))


@app.command(
    cls=Command, epilog="Example: gpufleet rank --fleet examples/fleets/mixed.yaml --min-free-memory 40000 --limit 3"
)
def rank(
    *,
    fleet: opt.Fleet,
    files: opt.OptionalManifests = None,
    workload: opt.WorkloadName = None,
    min_free_memory: opt.MinFreeMemory = None,
    nodes: opt.NodeFiles = None,
    pods: opt.PodFiles = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    schedulers: opt.Schedulers = opt.DEFAULT_SCHEDULERS,
    foreign_resources: opt.ForeignResources = opt.DEFAULT_FOREIGN_RESOURCES,
    tolerate_taints: opt.TolerateTaints = opt.DEFAULT_TOLERATE_TAINTS,
    node: opt.Nodes = None,
    limit: opt.Limit = None,
    output: opt.Output = OutputFormat.TABLE,
) -> None:
    """List the GPUs that can serve one replica, best first.

    SCORE and its terms are 0 to 1 (1 is best). The status of a GPUWorkload has the same values in thousandths.
    """
    from gpufleet_cli.commands import devices  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import cluster_rules, fleet_files  # noqa: PLC0415 - as above

    rules = cluster_rules(resource, schedulers, foreign_resources, tolerate_taints)
    request = devices.RequestOptions(files or (), workload, min_free_memory, rules)
    devices.rank(request, fleet_files(fleet, nodes, pods, now, stale_after), node or (), limit, output)


@app.command(
    cls=Command, epilog="Example: gpufleet explain -f examples/impossible.yaml --fleet examples/fleets/faults.yaml"
)
def explain(
    *,
    fleet: opt.Fleet,
    files: opt.OptionalManifests = None,
    workload: opt.WorkloadName = None,
    min_free_memory: opt.MinFreeMemory = None,
    nodes: opt.NodeFiles = None,
    pods: opt.PodFiles = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    schedulers: opt.Schedulers = opt.DEFAULT_SCHEDULERS,
    foreign_resources: opt.ForeignResources = opt.DEFAULT_FOREIGN_RESOURCES,
    tolerate_taints: opt.TolerateTaints = opt.DEFAULT_TOLERATE_TAINTS,
    node: opt.Nodes = None,
    limit: opt.Limit = None,
    output: opt.Output = OutputFormat.TABLE,
) -> None:
    """List every GPU with the first filter that it fails for one replica, if any."""
    from gpufleet_cli.commands import devices  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import cluster_rules, fleet_files  # noqa: PLC0415 - as above

    rules = cluster_rules(resource, schedulers, foreign_resources, tolerate_taints)
    request = devices.RequestOptions(files or (), workload, min_free_memory, rules)
    devices.explain(request, fleet_files(fleet, nodes, pods, now, stale_after), node or (), limit, output)


@app.command(cls=Command, epilog="Example: gpufleet summary --fleet examples/fleets/mixed.yaml")
def summary(
    *,
    fleet: opt.Fleet,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    output: opt.Output = OutputFormat.TABLE,
) -> None:
    """Show counts, totals and means of each node and of the fleet.

    Only the number of GPUs is shown for a node with stale telemetry. A dash is a value that is not reported.
    """
    from gpufleet_cli.commands import summary as command  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import fleet_files  # noqa: PLC0415 - as above

    command.summary(fleet_files(fleet, None, None, now, stale_after), output)


@app.command(
    cls=Command,
    epilog="Example: gpufleet distribute --items 1000 --by FreeMemory --fleet examples/fleets/mixed.yaml\n\n"
    "Example: gpufleet distribute --items 7 --capacity a=1 --capacity b=2.5 --max a=2 -o json",
)
def distribute(
    *,
    items: Annotated[
        int,
        typer.Option("--items", metavar="N", parser=integer("--items", 0), help="Number of items to divide."),
    ],
    capacity: Annotated[
        list[str] | None,
        typer.Option("--capacity", metavar="NAME=NUMBER", help="A receiver and its capacity. Repeatable."),
    ] = None,
    fleet: opt.OptionalFleet = None,
    by: Annotated[
        DeviceCapacity | None,
        typer.Option(
            "--by",
            metavar="MODE",
            parser=choice("--by", DeviceCapacity),
            help=f"Capacity of a GPU: {', '.join(DeviceCapacity)}. The default is FreeMemory.",
            show_default=False,
            rich_help_panel=opt.FLEET_PANEL,
        ),
    ] = None,
    maximum: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="[NAME=]N", help="Maximum of one receiver, or of each. Repeatable."),
    ] = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    output: opt.Output = OutputFormat.TABLE,
) -> None:
    """Divide items by capacity, among named receivers or among the free, healthy GPUs of a fleet.

    Uses the largest remainder method: the shares and the unassigned items always add up to the items. Each receiver
    gets a contiguous range [start, end), in the order of the options, or by node and GPU index.
    """
    from gpufleet_cli.commands import distribute as command  # noqa: PLC0415 - keeps --help fast

    command.distribute(
        items,
        named=capacity or (),
        fleet=fleet or (),
        by=by,
        maxima=maximum or (),
        now=now,
        stale_after=stale_after,
        output=output,
    )


@app.callback()
def _options(*, _: opt.Version = False) -> None:
    """Options before the command."""


@app.command(cls=Command)
def version() -> None:
    """Print the version."""
    opt.print_version(requested=True)
