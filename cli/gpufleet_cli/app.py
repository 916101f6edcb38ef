"""The commands in the order of `--help`, each with its example."""

from collections.abc import Callable
from typing import Final

import typer
from typer._completion_classes import completion_init  # no public name

from gpufleet_cli.declarations import change, observe, other, plan, snapshots
from gpufleet_cli.options.command_group import ClusterCommand, Command, CommandGroup, LiveCommand

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Shows the GPUs of a cluster and the GPUWorkloads on them, and where workloads would be placed.

    Reads the cluster of the current context with kubectl, or saved objects with `--from`. As a plugin of kubectl:
    `kubectl gpufleet`.""",
    epilog="Exit codes: 0 success; 1 not everything is placed, or something is wrong; 2 bad input, or the cluster "
    "cannot be used; 130 interrupted.",
)

_SHOW: Final = "Show"
_PLAN: Final = "Plan"
_CHANGE: Final = "Change"
_OTHER: Final = "Other"


def _add(
    function: Callable[..., None],
    panel: str | None,
    *examples: str,
    cls: type[Command] = ClusterCommand,
    group: typer.Typer = app,
) -> None:
    epilog = "\n\n".join(f"Example: gpufleet {example}" for example in examples)
    group.command(cls=cls, epilog=epilog, rich_help_panel=panel)(function)


_add(observe.top, _SHOW, "top node-1 -o wide", "top -w")
_add(observe.status, _SHOW, "status train -n ml", "status -A")
_add(
    observe.explain,
    _SHOW,
    "explain train -n ml",
    "explain -f examples/impossible.yaml --from examples/fleets/faults.yaml",
)
_add(observe.who, _SHOW, "who GPU-5301e0ff", "who node-1", "who ml/train-0-x7k2p")
_add(observe.recommend, _SHOW, "recommend train -n ml", "recommend -A -o wide")
_add(observe.doctor, _SHOW, "doctor", "doctor --from snapshot/ -o json")
_add(observe.summary, _SHOW, "summary", "summary --from examples/fleets/mixed.yaml")
_add(plan.simulate, _PLAN, "simulate -f examples/gang.yaml", "simulate -f examples/gang.yaml --from fleet.yaml")
_add(plan.rank, _PLAN, "rank --min-free-memory 40000 --limit 3")
_add(plan.convert, _PLAN, "convert -f deployment.yaml > gpuworkload.yaml", cls=Command)
_add(
    plan.distribute,
    _PLAN,
    "distribute --items 1000 --by FreeMemory",
    "distribute --items 7 --capacity a=1 --capacity b=2.5 --max a=2 -o json",
)
_add(plan.replay, _PLAN, "replay decisions.jsonl --without node-1", cls=Command)

_add(change.suspend, _CHANGE, "suspend train -n ml", cls=LiveCommand)
_add(change.resume, _CHANGE, "resume ml/train", cls=LiveCommand)
_add(change.logs, _SHOW, "logs train --replica 1 -f", cls=LiveCommand)
_add(change.cordon, _CHANGE, 'cordon node-1/3 --reason "fan, ticket 4711" --for-hours 48', cls=LiveCommand)
_add(change.uncordon, _CHANGE, "uncordon GPU-5301e0ff", cls=LiveCommand)
_add(change.drain, _CHANGE, 'drain GPU-5301e0ff --reason "replace the board"', cls=LiveCommand)
_add(change.acknowledge, _CHANGE, "acknowledge node-1", "acknowledge node-1 3", cls=LiveCommand)

_snapshot = typer.Typer(
    cls=CommandGroup, no_args_is_help=True, help="Save the state of a cluster, and show what was saved."
)
_add(snapshots.save, None, "snapshot save incident-4711", cls=LiveCommand, group=_snapshot)
_add(snapshots.show, None, "snapshot show incident-4711", cls=Command, group=_snapshot)
app.add_typer(_snapshot, name="snapshot", rich_help_panel=_OTHER)
_add(other.completion, _OTHER, "completion bash > ~/.local/share/bash-completion/completions/gpufleet", cls=Command)
_add(other.version, _OTHER, "version --client")
completion_init()  # without the options --install-completion and --show-completion


@app.callback()
def _options(*, _: other.Version = False) -> None:
    """Options before the command."""
