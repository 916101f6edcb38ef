"""The commands and their options. What a command does is imported when it runs, so that `--help` is quick."""

from typing import Annotated

import typer

from gpufleet_cli.options import shared as opt
from gpufleet_cli.options.command_group import Commands
from gpufleet_cli.options.parsers import whole

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Says where GPU workloads would go, and why or why not.

    The operator's own engine on a saved fleet: no cluster and no GPU needed. A fleet file is what
    `kubectl get gputelemetries -o yaml` prints.""",
    epilog="Exit codes: 0 done (simulate: all is placed), 1 not placed (replay: another decision), 2 bad input, "
    "130 interrupted.",
)


@app.command(
    epilog="Example: gpufleet simulate -f examples/gang.yaml --fleet examples/fleets/mixed.yaml",
)
def simulate(
    *,
    files: opt.Files,
    fleet: opt.FleetFiles,
    nodes: opt.NodeFiles = None,
    pods: opt.PodFiles = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    without: opt.Without = None,
    free: opt.Free = None,
    save: opt.Save = None,
    output: opt.Output = opt.Format.TABLE,
) -> None:
    """Where workloads would go and why, or why not.

    Several workloads are placed one after the other, and what one gets is gone for the next. SCORE is the
    weighted mean of the terms beside it, each from 0 to 1, which is best: free memory, idleness, coolness and
    power headroom of the replica's GPUs. A GPUWorkload's status has the same in thousandths: 810 is 0.810 here.
    """
    from gpufleet_cli.commands import run  # noqa: PLC0415 - keeps --help quick

    sources = run.sources(fleet, nodes, pods, now, stale_after)
    edits = run.edits(without, free)
    raise typer.Exit(run.simulate(files, sources, resource, edits=edits, save=save, output=output))


@app.command(epilog="Example: gpufleet replay decisions.jsonl --without node-1")
def replay(
    *,
    file: opt.Saved,
    without: opt.Without = None,
    free: opt.Free = None,
    output: opt.Output = opt.Format.TABLE,
) -> None:
    """Decide again what was saved, and compare byte for byte; or decide on an edited fleet.

    Exit code 0: the same decisions, or all is placed on the edited fleet; 1: not so.
    """
    from gpufleet_cli.commands import run  # noqa: PLC0415 - keeps --help quick

    raise typer.Exit(run.replay(file, run.edits(without, free), output))


@app.command(epilog="Example: gpufleet rank --fleet examples/fleets/mixed.yaml --min-free-memory 40000 --limit 3")
def rank(
    *,
    fleet: opt.FleetFiles,
    files: opt.MaybeFiles = None,
    workload: opt.WorkloadName = None,
    min_free_memory: opt.MinFreeMemory = None,
    nodes: opt.NodeFiles = None,
    pods: opt.PodFiles = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    node: opt.OnlyNodes = None,
    limit: opt.Limit = None,
    output: opt.Output = opt.Format.TABLE,
) -> None:
    """The GPUs that could serve one replica, best first, with their scores.

    SCORE and its terms go from 0 to 1, which is best. A GPUWorkload's status has them in thousandths: 810 is
    0.810 here.
    """
    from gpufleet_cli.commands import run  # noqa: PLC0415 - keeps --help quick

    asked = run.Asked(files or (), workload, min_free_memory, resource)
    run.rank(asked, run.sources(fleet, nodes, pods, now, stale_after), node or (), limit, output)


@app.command(epilog="Example: gpufleet explain -f examples/impossible.yaml --fleet examples/fleets/faults.yaml")
def explain(
    *,
    fleet: opt.FleetFiles,
    files: opt.MaybeFiles = None,
    workload: opt.WorkloadName = None,
    min_free_memory: opt.MinFreeMemory = None,
    nodes: opt.NodeFiles = None,
    pods: opt.PodFiles = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    node: opt.OnlyNodes = None,
    limit: opt.Limit = None,
    output: opt.Output = opt.Format.TABLE,
) -> None:
    """For each GPU: whether it could serve one replica, or the first test that it fails."""
    from gpufleet_cli.commands import run  # noqa: PLC0415 - keeps --help quick

    asked = run.Asked(files or (), workload, min_free_memory, resource)
    run.explain(asked, run.sources(fleet, nodes, pods, now, stale_after), node or (), limit, output)


@app.command(epilog="Example: gpufleet summary --fleet examples/fleets/mixed.yaml")
def summary(
    *,
    fleet: opt.FleetFiles,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    output: opt.Output = opt.Format.TABLE,
) -> None:
    """The fleet in a few numbers, node by node and in all.

    Nodes with stale telemetry count with their GPUs alone. A dash is a value that nobody reports.
    """
    from gpufleet_cli.commands import run  # noqa: PLC0415 - keeps --help quick

    run.summary(run.sources(fleet, None, None, now, stale_after), output)


@app.command(
    epilog="Examples: gpufleet distribute --items 1000 --by FreeMemory --fleet examples/fleets/mixed.yaml; "
    "gpufleet distribute --items 7 --capacity a=1 --capacity b=2.5 --max a=2 -o json",
)
def distribute(
    *,
    items: Annotated[
        int,
        typer.Option("--items", metavar="N", parser=whole("--items", 0), help="How many items there are to divide."),
    ],
    capacity: Annotated[
        list[str] | None, typer.Option("--capacity", metavar="NAME=NUMBER", help="A receiver. Repeatable.")
    ] = None,
    fleet: opt.MaybeFleetFiles = None,
    by: Annotated[
        opt.By | None,
        typer.Option(
            "--by", help="Capacity of a GPU; FreeMemory unless given.", show_default=False, rich_help_panel="Fleet"
        ),
    ] = None,
    maximum: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="[NAME=]N", help="Most items of one receiver, or of each. Repeatable."),
    ] = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    output: opt.Output = opt.Format.TABLE,
) -> None:
    """Divide items by capacity: among names given by hand, or among the free, healthy GPUs of a fleet.

    Largest remainder: shares and what is unassigned add up to the items, always. Each receiver gets a contiguous
    range [start, end), in the order in which they are named, or by node and index.
    """
    from gpufleet_cli.commands import run  # noqa: PLC0415 - keeps --help quick

    ages = (now, stale_after)
    run.distribute(
        items, named=capacity or (), fleet=fleet or (), by=by, maxima=maximum or (), ages=ages, output=output
    )


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - keeps --help quick

    typer.echo(f"gpufleet {installed('gpufleet')}")
