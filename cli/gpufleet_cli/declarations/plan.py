"""Signatures of the commands that run the engine. Each imports its implementation when it runs: `--help` is fast."""

from typing import Annotated

import typer

from gpufleet_cli.options import shared as opt
from gpufleet_cli.options.choices import DeviceCapacity, OutputFormat
from gpufleet_cli.options.parsers import choice, integer
from gpufleet_cli.options.target import Target


def simulate(
    ctx: typer.Context,
    *,
    files: opt.Manifests,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    schedulers: opt.Schedulers = opt.DEFAULT_SCHEDULERS,
    forbidden_resources: opt.ForbiddenResources = opt.DEFAULT_FORBIDDEN_RESOURCES,
    tolerate_taints: opt.TolerateTaints = opt.DEFAULT_TOLERATE_TAINTS,
    without: opt.Without = None,
    free: opt.Free = None,
    save: opt.Save = None,
    preempt: opt.Preempt = False,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Place workloads on the fleet as it is now, without changing it, and explain what is not placed.

    The apiserver is asked whether it would admit their pods (quotas, Pod Security, webhooks), without storing them.

    The workloads are placed in order, and each one reduces what the next ones can get. SCORE is the weighted mean
    of the terms next to it, 0 to 1 each (1 is best): free memory, unused compute, low temperature and power headroom
    of the replica's GPUs. The status of a GPUWorkload has the same values in thousandths.
    """
    from gpufleet_cli.commands import simulate as command  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import cluster_rules, edits  # noqa: PLC0415 - as above

    rules = cluster_rules(resource, schedulers, forbidden_resources, tolerate_taints)
    code = command.simulate(
        files,
        ctx.obj,
        (now, stale_after),
        rules,
        edits=edits(without, free),
        save=save,
        preempt=preempt,
        output=output,
        headers=not no_headers,
    )
    raise typer.Exit(code)


def replay(
    *,
    file: opt.DecisionFile,
    without: opt.Without = None,
    free: opt.Free = None,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Repeat saved decisions and compare them byte for byte, or make them on an edited fleet.

    Exits with 0 when all decisions are the same or, on an edited fleet, when everything is placed; else with 1.
    """
    from gpufleet_cli.commands import replay as command  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import edits  # noqa: PLC0415 - as above

    raise typer.Exit(command.replay(file, edits(without, free), output, headers=not no_headers))


def convert(*, files: opt.Manifests) -> None:
    """Convert Deployments, Jobs, JobSets and Pods that request GPUs to GPUWorkloads.

    Prints the manifests to stdout, objects without GPUs as they are, and what changed as notes to stderr.
    """
    from gpufleet_cli.commands import convert as command  # noqa: PLC0415 - keeps --help fast

    command.convert(files)


def rank(
    ctx: typer.Context,
    *,
    files: opt.OptionalManifests = None,
    workload: opt.WorkloadName = None,
    min_free_memory: opt.MinFreeMemory = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    resource: opt.Resource = opt.DEFAULT_RESOURCE,
    schedulers: opt.Schedulers = opt.DEFAULT_SCHEDULERS,
    forbidden_resources: opt.ForbiddenResources = opt.DEFAULT_FORBIDDEN_RESOURCES,
    tolerate_taints: opt.TolerateTaints = opt.DEFAULT_TOLERATE_TAINTS,
    node: opt.Nodes = None,
    limit: opt.Limit = None,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """List the GPUs that can serve one replica, best first.

    SCORE and its terms are 0 to 1 (1 is best). The status of a GPUWorkload has the same values in thousandths.
    """
    from gpufleet_cli.commands import devices  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import cluster_rules  # noqa: PLC0415 - as above
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - as above

    rules = cluster_rules(resource, schedulers, forbidden_resources, tolerate_taints)
    request = devices.RequestOptions(files or (), workload, min_free_memory, rules, (now, stale_after))
    devices.rank(request, ctx.obj, node or (), limit, OutputOptions(output, not no_headers))


def distribute(
    ctx: typer.Context,
    *,
    items: Annotated[
        int,
        typer.Option("--items", metavar="N", parser=integer("--items", 0), help="Number of items to divide."),
    ],
    capacity: Annotated[
        list[str] | None,
        typer.Option("--capacity", metavar="NAME=NUMBER", help="A receiver and its capacity. Repeatable."),
    ] = None,
    by: Annotated[
        DeviceCapacity | None,
        typer.Option(
            "--by",
            metavar="MODE",
            parser=choice("--by", DeviceCapacity),
            help=f"Capacity of a GPU: {', '.join(DeviceCapacity)}. The default is FreeMemory.",
            show_default=False,
        ),
    ] = None,
    maximum: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="[NAME=]N", help="Maximum of one receiver, or of each. Repeatable."),
    ] = None,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Divide items by capacity, among named receivers or among the free, healthy GPUs of the fleet.

    Uses the largest remainder method: the parts and the unassigned items always add up to the items. Each receiver
    gets a contiguous range [start, end), in the order of the options, or by node and GPU index.
    """
    from gpufleet_cli.commands import distribute as command  # noqa: PLC0415 - keeps --help fast

    target: Target = ctx.obj
    command.distribute(
        items,
        named=capacity or (),
        target=target,
        by=by,
        maxima=maximum or (),
        now=now,
        stale_after=stale_after,
        output=output,
        headers=not no_headers,
    )
