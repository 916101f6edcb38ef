"""`gpufleet who GPU|POD|NODE`."""

from collections.abc import Callable

from gpufleet_cli.cluster.failures import near
from gpufleet_cli.cluster.kinds import TELEMETRY
from gpufleet_cli.commands.live.reading import read, scope, view_of
from gpufleet_cli.errors import MissingObjectError
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.live import gpu_tables, shapes
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView, PodUse
from gpufleet_cli.view.lookup import find_gpu, split_name

Uses = list[tuple[GPUView, PodUse | None]]


def who(target: Target, name: str, output: OutputOptions) -> None:
    """Prints who uses a GPU or the GPUs of a node, or which GPUs a pod or a workload uses."""
    view = view_of(read(target, [TELEMETRY]))
    found = uses(view, name, lambda: scope(target) or "default")

    def draw(screen: Screen, _wide: bool) -> None:
        gpu_tables.holders(screen, found)

    rendering = Rendering(
        lambda: [{**shapes.gpu(gpu), "pods": [] if use is None else [shapes.use(use)]} for gpu, use in found],
        lambda: [f"pod/{use.pod}" for _, use in found if use is not None],
        draw,
    )
    write(rendering, output.format, headers=output.headers)
    stale = sorted({gpu.node for gpu, _ in found if gpu.not_current})
    write_notes(f"{node}: {view.nodes[node].state}: {view.nodes[node].message}" for node in stale)


def uses(view: FleetView, name: str, namespace: Callable[[], str]) -> Uses:
    """Returns the GPUs that a name is about, each with one of its pods.

    Raises:
        MissingObjectError: The name is not that of a GPU, a node, or a pod or workload that uses a GPU.
    """
    if name in view.nodes:
        return [pair for gpu in view.nodes[name].gpus for pair in _of(gpu)]
    gpu = find_gpu(view, name)
    if gpu is not None:
        return _of(gpu)
    space, bare = split_name(name, namespace())
    pairs = [(gpu, use) for gpu in view.gpus for use in gpu.uses]
    found: Uses = [(gpu, use) for gpu, use in pairs if use.namespace == space and bare in (use.pod, use.workload)]
    if found:
        return found
    holders = [(use.namespace, one) for _, use in pairs for one in (use.pod, use.workload) if one]
    short = [one if owner == space and "/" not in name else f"{owner}/{one}" for owner, one in holders]
    uuids = [gpu.uuid for gpu in view.gpus] if name.startswith("GPU-") else []
    known = [*view.nodes, *short, *uuids]
    raise MissingObjectError(
        f'"{name}" is not a GPU, a node, or a pod or GPUWorkload of namespace {space} that has a GPU{near(name, known)}'
    )


def _of(gpu: GPUView) -> Uses:
    return [(gpu, use) for use in gpu.uses] or [(gpu, None)]
