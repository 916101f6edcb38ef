"""Signatures of the commands that show a cluster. Each imports its implementation when it runs: `--help` is fast."""

from typing import Annotated

import typer

from gpufleet_cli.errors import InputError
from gpufleet_cli.options import shared as opt
from gpufleet_cli.options.choices import OutputFormat
from gpufleet_cli.options.completers import complete_holder, complete_node, complete_workload, complete_workload_or_pod


def top(
    ctx: typer.Context,
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="[NODE...]", help="Nodes to show.", autocompletion=complete_node)
    ] = None,
    *,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
    watch: opt.Watch = False,
) -> None:
    """Show every GPU: use, temperature, health, and the pod that holds it.

    STATUS is Free, InUse, Shared, Reserved (for a pod that has not started), Cordoned, Draining, Withheld,
    ForeignProcess (used outside of Kubernetes), the fault of an unhealthy GPU, or Stale, NoDriver or Invalid when the
    node's values are not current. With -n only GPUs that pods of the namespace hold or have reserved are shown.
    """
    from gpufleet_cli.commands.live.top import top as run  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - as above

    run(ctx.obj, nodes or (), OutputOptions(output, not no_headers, watch))


def status(
    ctx: typer.Context,
    workloads: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAMESPACE/]WORKLOAD...]",
            help="GPUWorkloads; the default is all of the namespace.",
            autocompletion=complete_workload,
        ),
    ] = None,
    *,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
    watch: opt.Watch = False,
) -> None:
    """Show GPUWorkloads as trees: replicas, pods with their containers, nodes, GPUs, and conditions in words.

    Conditions that report nothing unusual are left out; -o wide shows all of them.
    """
    from gpufleet_cli.commands.live.status import status as run  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - as above

    run(ctx.obj, workloads or (), OutputOptions(output, not no_headers, watch))


def explain(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[[NAMESPACE/]WORKLOAD|POD]",
            help="A GPUWorkload or pod of the cluster.",
            autocompletion=complete_workload_or_pod,
        ),
    ] = None,
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
    """Show why a GPUWorkload or pod waits and why it has its GPUs, or why each GPU is not eligible for a request.

    With a name: the operator's reasons, rejections of schedulers and kubelets, events. Without a name: every GPU with
    the first filter that it fails for one replica of the manifest, or for a request for one healthy, free GPU.
    """
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - keeps --help fast

    options = OutputOptions(output, not no_headers)
    if name is not None:
        if files or workload or min_free_memory is not None:
            raise InputError(f"{name}: a name may not be given with -f, --workload or --min-free-memory")
        from gpufleet_cli.commands.live.explain import explain as run  # noqa: PLC0415 - as above

        run(ctx.obj, name, options)
        return
    from gpufleet_cli.commands import devices  # noqa: PLC0415 - as above
    from gpufleet_cli.commands.sources import cluster_rules  # noqa: PLC0415 - as above

    rules = cluster_rules(resource, schedulers, forbidden_resources, tolerate_taints)
    request = devices.RequestOptions(files or (), workload, min_free_memory, rules, (now, stale_after))
    devices.explain(request, ctx.obj, node or (), limit, options)


def who(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="GPU|NODE|[NAMESPACE/]POD",
            help="UUID of a GPU or the start of one, NODE/INDEX, a node, a pod, or a GPUWorkload.",
            autocompletion=complete_holder,
        ),
    ],
    *,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Show who holds or has reserved a GPU or the GPUs of a node, or which GPUs a pod has."""
    from gpufleet_cli.commands.live.who import who as run  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - as above

    run(ctx.obj, name, OutputOptions(output, not no_headers))


def recommend(
    ctx: typer.Context,
    workloads: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAMESPACE/]WORKLOAD...]",
            help="GPUWorkloads, or other owners such as Deployment/embed; the default is all in the namespace.",
            autocompletion=complete_workload,
        ),
    ] = None,
    *,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Show how much memory of shared GPUs runs were promised and used, and recommend a memoryMiB.

    Runs of one owner, container and image are counted together; a name may end with what generateName, a Deployment or
    a CronJob adds. A recommendation is a tenth more than the largest use of the latest runs.
    """
    from gpufleet_cli.commands.live.recommend import recommend as run  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - as above

    run(ctx.obj, workloads or (), OutputOptions(output, not no_headers))


def doctor(
    ctx: typer.Context,
    *,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Check the installation, and name cause and cure of each problem. Exits with 1 when there is one.

    Checks CRDs, admission policies, operator, agents, telemetry, drivers, device plugins, runtime handlers, taints, Pod
    Security, gated pods, reservations, versions and clocks. What may not be read is not checked, with a note.
    """
    from gpufleet_cli.commands.live.doctor import doctor as run  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.output.rendering import OutputOptions  # noqa: PLC0415 - as above

    raise typer.Exit(run(ctx.obj, OutputOptions(output, not no_headers)))


def summary(
    ctx: typer.Context,
    *,
    now: opt.Now = None,
    stale_after: opt.StaleAfter = None,
    output: opt.Output = OutputFormat.TABLE,
    no_headers: opt.NoHeaders = False,
) -> None:
    """Show counts, totals and means of each node and of the fleet.

    Only the number of GPUs is shown for a node with stale telemetry. A dash is a value that is not reported.
    """
    from gpufleet_cli.commands import summary as command  # noqa: PLC0415 - keeps --help fast
    from gpufleet_cli.commands.sources import fleet_documents  # noqa: PLC0415 - as above

    command.summary(fleet_documents(ctx.obj, now, stale_after), output, headers=not no_headers)
