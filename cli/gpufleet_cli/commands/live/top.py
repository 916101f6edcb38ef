"""`gpufleet top`."""

from collections.abc import Sequence

from gpufleet_cli.cluster.failures import near
from gpufleet_cli.cluster.kinds import TELEMETRY
from gpufleet_cli.commands.live.reading import read, repeat, view_of
from gpufleet_cli.errors import MissingObjectError
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.live import gpu_tables, shapes
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView


def top(target: Target, nodes: Sequence[str], output: OutputOptions) -> None:
    """Prints a line per GPU. With a namespace, only the GPUs that its pods hold or have reserved."""

    def once() -> None:
        view = view_of(read(target, [TELEMETRY]))
        found = select(view, nodes, target.connection.namespace)

        def draw(screen: Screen, wide: bool) -> None:
            gpu_tables.gpus(screen, found, wide=wide)

        rendering = Rendering(lambda: [shapes.gpu(g) for g in found], lambda: [g.uuid for g in found], draw)
        write(rendering, output.format, headers=output.headers, redraw=output.watch)
        write_notes(_notes(view, nodes, found, target.connection.namespace))

    repeat(once, watch=output.watch)


def select(view: FleetView, nodes: Sequence[str], namespace: str | None) -> list[GPUView]:
    """Returns the GPUs of some nodes, or of all, that pods of the namespace use, if there is one.

    Raises:
        MissingObjectError: A node has no GPUTelemetry.
    """
    for name in nodes:
        if name not in view.nodes:
            raise MissingObjectError(f'node "{name}" has no GPUTelemetry{near(name, list(view.nodes))}')
    return [
        gpu
        for gpu in view.gpus
        if (not nodes or gpu.node in nodes) and (namespace is None or any(u.namespace == namespace for u in gpu.uses))
    ]


def _notes(view: FleetView, nodes: Sequence[str], found: Sequence[GPUView], namespace: str | None) -> list[str]:
    chosen = [view.nodes[name] for name in sorted(view.nodes) if not nodes or name in nodes]
    notes = [f"{one.node}: {one.state}: {one.message}" for one in chosen if one.state != "Ready"]
    if not found and not notes:
        reported = any(one.gpus for one in chosen)
        notes.append(
            f"no pod of namespace {namespace} has a GPU" if reported else "no agent reports a GPU: see gpufleet doctor"
        )
    return notes
