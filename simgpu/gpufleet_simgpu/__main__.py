"""`python -m gpufleet_simgpu`: creates simulated GPUs, and changes them while an agent reads them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import HEAVY_HEAD, SIMPLE
from rich.console import Console
from rich.table import Table

from gpufleet_simgpu.build import CompilerError, build_library
from gpufleet_simgpu.clients import open_clients
from gpufleet_simgpu.files import STATE, edit, read_state, write_state
from gpufleet_simgpu.model import ALL, NOT_AVAILABLE, UNAVAILABLE_EVENT, XID_EVENT, SimNode, SimProcess, SimSeries
from gpufleet_simgpu.presets import PRESETS, make_node
from gpufleet_simgpu.text import NUMBERS, StateFormatError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Creates and changes simulated GPUs: a libnvidia-ml.so.1 that reads a file.",
)

Folder = Annotated[Path, typer.Argument(help="Directory of the library and its gpus.state.", metavar="DIRECTORY")]
_MEMORY_FAULTS = ("ecc_uncorrected", "remap_pending", "remap_failed", "retirement_pending", "recovery_action")

_WIDE = 140
"""Columns of a terminal that fits whole UUIDs."""

Gpu = Annotated[int, typer.Argument(help="Index of the GPU.", min=0)]


@app.command()
def init(
    folder: Folder,
    gpus: Annotated[int, typer.Option(help="Number of GPUs.", min=0)] = 8,
    model: Annotated[str, typer.Option(help=f"Model of the GPUs, one of {', '.join(PRESETS)}.")] = "h100",
    node: Annotated[str, typer.Option(help="Name of the node, from which UUIDs are derived.")] = "node",
) -> None:
    """Builds the library and writes the state of a node with idle GPUs."""
    state = make_node(model, gpus, node=node)
    library = build_library(folder)
    write_state(folder / STATE, state)
    typer.echo(f"{library}\n{folder / STATE}: {gpus} x {PRESETS[model].name}")
    typer.echo(f"LD_LIBRARY_PATH={folder.resolve()} makes nvidia-ml-py use them")


@app.command()
def build(folder: Folder) -> None:
    """Builds only the library."""
    typer.echo(build_library(folder))


@app.command("set")
def set_fields(
    folder: Folder,
    gpu: Gpu,
    fields: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE...", help="Value: number, `none` (unsupported), `na` (NVML's sentinel)."),
    ],
) -> None:
    """Changes values of one GPU, such as `temperature_celsius=91 utilization_percent=100`."""
    changes = dict(_assignment(field) for field in fields)
    _edit(folder, lambda node: node.with_gpu(gpu, **changes))


@app.command()
def processes(
    folder: Folder,
    gpu: Gpu,
    pids: Annotated[
        list[str] | None, typer.Argument(metavar="PID:MIB[:G][@PERCENT]...", help="Without any: no process.")
    ] = None,
) -> None:
    """Replaces the processes of one GPU."""
    listed = tuple(_process(text) for text in pids or ())
    _edit(folder, lambda node: node.with_gpu(gpu, processes=listed))


@app.command()
def xid(folder: Folder, gpu: Gpu, code: Annotated[int, typer.Argument(help="XID.", min=1)]) -> None:
    """Makes one GPU report an XID, once to every event set."""
    _edit(folder, lambda node: node.with_gpu(gpu).with_xid(gpu, code))


@app.command()
def unavailable(folder: Folder, gpu: Gpu) -> None:
    """Makes one GPU report that it is unavailable, once to every event set."""
    _edit(folder, lambda node: node.with_gpu(gpu).with_event(gpu, UNAVAILABLE_EVENT))


@app.command()
def lose(folder: Folder, gpu: Gpu) -> None:
    """Makes one GPU fall off the bus."""
    _edit(folder, lambda node: node.with_gpu(gpu).lose(gpu))


@app.command()
def fail(
    folder: Folder,
    gpu: Gpu,
    code: Annotated[int, typer.Argument(help="NVML return code, such as 16 or 999; 0 ends it.", min=0, max=999)],
    field: Annotated[str, typer.Option(help="Field whose calls are affected.")] = ALL,
) -> None:
    """Makes calls about one GPU fail."""
    _edit(folder, lambda node: node.with_gpu(gpu).with_fail(gpu, field, code))


@app.command()
def delay(
    folder: Folder,
    gpu: Gpu,
    milliseconds: Annotated[int, typer.Argument(help="Duration of each call; 0 ends it.", min=0, max=86_400_000)],
    field: Annotated[str, typer.Option(help="Field whose calls are affected.")] = ALL,
) -> None:
    """Delays calls about one GPU; an hour simulates a hung driver."""
    _edit(folder, lambda node: node.with_gpu(gpu).with_delay(gpu, field, milliseconds))


@app.command()
def restore(folder: Folder, gpu: Gpu) -> None:
    """Ends `lose`, `fail` and `delay` of one GPU."""
    _edit(folder, lambda node: node.with_gpu(gpu).restore(gpu))


@app.command()
def play(
    folder: Folder,
    gpu: Gpu,
    series: Annotated[str, typer.Argument(help="Series file, absolute or in DIRECTORY; `none` ends the series.")],
    *,
    loop: Annotated[bool, typer.Option(help="At its end repeat the series, or keep its last values.")] = True,
) -> None:
    """Plays a recorded series of values on one GPU, from now on."""
    playing = None if series == "none" else SimSeries(series, time.time(), loop=loop)
    if playing is not None and not (folder / series).is_file():
        raise typer.BadParameter(f"{folder / series} is not a file")
    _edit(folder, lambda node: node.with_gpu(gpu, series=playing))


@app.command()
def driver(
    folder: Folder,
    error: Annotated[
        int,
        typer.Argument(help="NVML code: 9 not loaded, 18 version mismatch, 0 success.", min=0, max=999),
    ],
    version: Annotated[str | None, typer.Option(help="Version of the driver from now on.")] = None,
) -> None:
    """Makes every call fail with one NVML return code, and changes the driver's version."""
    _edit(folder, lambda node: replace(node, error=error, driver=version or node.driver))


@app.command()
def show(folder: Folder) -> None:
    """Prints the node as a table."""
    console = Console()
    console.print(_table(read_state(folder / STATE), narrow=console.width < _WIDE))


def _edit(folder: Path, change: Callable[[SimNode], SimNode]) -> None:
    edit(folder / STATE, change)


def _assignment(text: str) -> tuple[str, int | None]:
    name, equals, value = text.partition("=")
    if not equals or name not in NUMBERS:
        raise typer.BadParameter(f"{text!r}: must be FIELD=VALUE, with a field of {', '.join(NUMBERS)}")
    if value == "none":
        return name, None
    try:
        return name, NOT_AVAILABLE if value == "na" else int(value)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {value!r} must be a whole number, `na` or `none`") from error


def _process(text: str) -> SimProcess:
    listed, _, part = text.partition("@")
    percent = int(part) if part else None
    match listed.split(":"):
        case [pid, mib]:
            return SimProcess(int(pid), int(mib), sm_percent=percent)
        case [pid, mib, ("C" | "G") as kind]:
            return SimProcess(int(pid), int(mib), kind, sm_percent=percent)
        case _:
            raise typer.BadParameter(f"{text!r}: must be PID:MIB or PID:MIB:G, with @PERCENT at the end or not")


@app.command()
def clients(folder: Folder) -> None:
    """Prints the processes that have initialized the library and not shut it down, by PID."""
    for pid in open_clients(folder):
        typer.echo(pid)


def _table(node: SimNode, *, narrow: bool) -> Table:
    models = ", ".join(sorted({gpu.name for gpu in node.gpus}))
    error = f", every call fails with {node.error}" if node.error else ""
    table = Table(title=f"{models}; driver {node.driver}{error}", box=SIMPLE if narrow else HEAVY_HEAD)
    table.add_column("GPU", justify="right")
    table.add_column("UUID", no_wrap=True)
    if not narrow:
        table.add_column("model", no_wrap=True)
    for column in ("MiB", "util %", "°C", "W", "procs"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("faults", overflow="fold")
    for index, gpu in enumerate(node.gpus):
        watts = gpu.power_milliwatts
        table.add_row(
            str(index),
            *([gpu.uuid[:12]] if narrow else [gpu.uuid, gpu.name]),
            f"{_text(gpu.memory_used_mib)} / {_text(gpu.memory_total_mib)}",
            _text(gpu.utilization_percent),
            _text(gpu.temperature_celsius),
            "-" if watts is None else f"{watts / 1000:.0f}",
            str(len(gpu.processes)),
            "lost" if gpu.lost else ", ".join(_faults(node, index)),
        )
    return table


def _faults(node: SimNode, index: int) -> Iterator[str]:
    gpu = node.gpus[index]
    for name, code in gpu.fail.items():
        yield f"{name} fails with {code}"
    for name, milliseconds in gpu.delay.items():
        yield f"{name} takes {milliseconds} ms"
    for name in _MEMORY_FAULTS:
        if getattr(gpu, name):
            yield f"{name} {getattr(gpu, name)}"
    for event in node.xids:
        if event.gpu == index:
            yield f"XID {event.code}" if event.event_type == XID_EVENT else f"event {event.event_type:#x}"


def _text(number: int | None) -> str:
    return "-" if number is None else str(number)


def main() -> None:
    """Runs the command; an error is one line."""
    try:
        app()
    except (CompilerError, IndexError, StateFormatError, ValueError, OSError) as error:
        raise SystemExit(f"gpufleet_simgpu: {error}") from error


if __name__ == "__main__":
    main()
