"""Signatures of the commands that change a cluster. Each imports its implementation when it runs: `--help` is fast."""

from typing import Annotated, TypeAlias

import typer

from gpufleet_cli.options.completers import complete_gpu, complete_node, complete_workload
from gpufleet_cli.options.parsers import integer, seconds

_GPU_HELP = "UUID of a GPU, the start of one, or NODE/INDEX."

GPUs: TypeAlias = Annotated[list[str], typer.Argument(metavar="GPU...", help=_GPU_HELP, autocompletion=complete_gpu)]
Workloads: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="[NAMESPACE/]WORKLOAD...", help="GPUWorkloads.", autocompletion=complete_workload),
]
Reason: TypeAlias = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Reason, shown in explanations. Required for a GPU in service."),
]
By: TypeAlias = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Person or tool that takes the GPU out of service.")
]
Until: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="TIME", help="Time at which the GPU returns to service, such as 2026-01-02T03:04:05Z."
    ),
]
Hours: TypeAlias = Annotated[
    float | None, typer.Option("--for-hours", metavar="N", help="Hours after which the GPU returns to service.")
]


def suspend(ctx: typer.Context, workloads: Workloads) -> None:
    """Delete the pods of GPUWorkloads and free their GPUs, until they are resumed."""
    from gpufleet_cli.commands.live.workload_run import suspend as run  # noqa: PLC0415 - keeps --help fast

    run(ctx.obj, workloads, suspended=True)


def resume(ctx: typer.Context, workloads: Workloads) -> None:
    """Place suspended GPUWorkloads again."""
    from gpufleet_cli.commands.live.workload_run import suspend as run  # noqa: PLC0415 - keeps --help fast

    run(ctx.obj, workloads, suspended=False)


def logs(
    ctx: typer.Context,
    workload: Annotated[
        str,
        typer.Argument(metavar="[NAMESPACE/]WORKLOAD", help="A GPUWorkload.", autocompletion=complete_workload),
    ],
    *,
    replica: Annotated[
        int | None,
        typer.Option("--replica", metavar="N", parser=integer("--replica", 0), help="Only this replica, from 0."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", metavar="", help="Stream the log.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", metavar="", help="The last run of a container that was restarted.")
    ] = False,
    container: Annotated[
        str | None, typer.Option("--container", "-c", metavar="NAME", help="A container; default: the first.")
    ] = None,
    tail: Annotated[int, typer.Option("--tail", metavar="N", help="Last lines of each pod; -1: all.")] = -1,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="DURATION", help="Only lines newer than this duration, such as 10m."),
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", metavar="", help="Print the time of each line.")] = False,
) -> None:
    """Print the logs of a GPUWorkload's pods, each line with its pod when there are several."""
    from gpufleet_cli.commands.live import workload_run  # noqa: PLC0415 - keeps --help fast

    options = workload_run.LogOptions(replica, follow, previous, container, tail, since, timestamps)
    raise typer.Exit(workload_run.logs(ctx.obj, workload, options))


def cordon(
    ctx: typer.Context,
    gpus: GPUs,
    *,
    reason: Reason = None,
    by: By = None,
    until: Until = None,
    for_hours: Hours = None,
) -> None:
    """Take GPUs out of service: no new container gets them. Containers that have them keep them."""
    from gpufleet_cli.commands.live import gpu_service  # noqa: PLC0415 - keeps --help fast

    gpu_service.cordon(ctx.obj, gpus, reason, by, gpu_service.until_time(until, for_hours))


def uncordon(ctx: typer.Context, gpus: GPUs) -> None:
    """Return GPUs to service."""
    from gpufleet_cli.commands.live import gpu_service  # noqa: PLC0415 - keeps --help fast

    gpu_service.uncordon(ctx.obj, gpus)


def drain(
    ctx: typer.Context,
    gpu: Annotated[str, typer.Argument(metavar="GPU", help=_GPU_HELP, autocompletion=complete_gpu)],
    *,
    reason: Reason = None,
    by: By = None,
    until: Until = None,
    for_hours: Hours = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            parser=seconds("--timeout"),
            help="Seconds to wait until the pods have ended.",
        ),
    ] = 300.0,
) -> None:
    """Take a GPU out of service and move its pods away, as far as PodDisruptionBudgets allow.

    Waits until no pod has the GPU; exits with 1 when one still has it after --timeout. Pods without a controller, of a
    DaemonSet, and static pods are not evicted.
    """
    from gpufleet_cli.commands.live import gpu_service  # noqa: PLC0415 - keeps --help fast

    end = gpu_service.until_time(until, for_hours)
    raise typer.Exit(gpu_service.drain(ctx.obj, gpu, reason, by, end, timeout_seconds=timeout))


def acknowledge(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node.", autocompletion=complete_node)],
    gpu: Annotated[
        str | None, typer.Argument(metavar="[GPU]", help="UUID or index of one GPU.", autocompletion=complete_gpu)
    ] = None,
) -> None:
    """Acknowledge the faults of a node's GPUs, or of one, after a reset that the driver does not report.

    Faults up to the agent's last report end, unless the driver still reports them.
    """
    from gpufleet_cli.commands.live import gpu_service  # noqa: PLC0415 - keeps --help fast

    gpu_service.acknowledge(ctx.obj, node, gpu)
