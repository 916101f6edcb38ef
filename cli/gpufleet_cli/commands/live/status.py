"""`gpufleet status`."""

from collections.abc import Sequence

from gpufleet_cli.cluster.kinds import TELEMETRY, WORKLOAD_PODS, WORKLOADS
from gpufleet_cli.commands.live.reading import read, repeat, scope, view_of
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.live import shapes
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_cli.view.lookup import named, split_name
from gpufleet_cli.view.workload_tree import workload_tree


def status(target: Target, names: Sequence[str], output: OutputOptions) -> None:
    """Prints a tree for each of these workloads, or for all of the namespace."""
    space = scope(target)
    spaces = {split_name(name, space or "default")[0] for name in names}
    where = space if spaces <= {space} else None

    def once() -> None:
        view = view_of(read(target, [WORKLOADS], [WORKLOAD_PODS, TELEMETRY], where))
        found = [named("GPUWorkload", name, space or "default", view.workloads) for name in names] or list(
            view.workloads.values()
        )

        def draw(screen: Screen, wide: bool) -> None:
            for one in found:
                screen.tree(workload_tree(view, one, all_conditions=wide))

        rendering = Rendering(
            lambda: [shapes.workload(view, one) for one in found],
            lambda: [f"gpuworkload.gpufleet.dev/{one.name}" for one in found],
            draw,
        )
        write(rendering, output.format, headers=output.headers, redraw=output.watch)
        if not found:
            write_notes([f"no GPUWorkload found{f' in namespace {space}: see -A' if space else ''}"])

    repeat(once, watch=output.watch)
