"""`gpufleet recommend`."""

from collections.abc import Sequence

from gpufleet_cli.cluster.failures import near
from gpufleet_cli.cluster.kinds import DEMANDS
from gpufleet_cli.commands.live.reading import read, scope
from gpufleet_cli.errors import MissingObjectError
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.live import demands
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_cli.view.demand_view import DemandView, demand_views, of_owner
from gpufleet_cli.view.lookup import split_name


def recommend(target: Target, names: Sequence[str], output: OutputOptions) -> None:
    """Prints the memory use of the runs of these owners, or of all owners in the namespace.

    Raises:
        MissingObjectError: An owner has no GPUDemand.
    """
    space = scope(target)
    wanted = [_split(name, space or "default") for name in names]
    where = space if {namespace for namespace, _, _ in wanted} <= {space} else None
    known = demand_views(read(target, [DEMANDS], namespace=where).of(DEMANDS))
    found = [one for owner in wanted for one in _named(known, *owner)] if wanted else known

    def draw(screen: Screen, wide: bool) -> None:
        demands.table(screen, found, wide=wide, namespaces=where is None)

    rendering = Rendering(
        lambda: [demands.shape(one) for one in found],
        lambda: [f"gpudemand.gpufleet.dev/{one.name}" for one in found],
        draw,
    )
    write(rendering, output.format, headers=output.headers)
    if not found:
        here = f" in namespace {space}: see -A" if space else ""
        write_notes([f"no run on a shared GPU was recorded{here}"])


def _split(name: str, namespace: str) -> tuple[str, str, str]:
    """Returns namespace, kind and name of an owner. `Deployment/web`, as the table prints it, names its kind."""
    kind, slash, bare = name.partition("/")
    if slash and kind != kind.lower():  # no namespace has upper-case letters
        return namespace, kind, bare
    space, bare = split_name(name, namespace)
    return space, "", bare


def _named(known: Sequence[DemandView], namespace: str, kind: str, name: str) -> list[DemandView]:
    found = [one for one in of_owner(known, namespace, name) if kind in ("", one.owner_kind)]
    if not found:
        owners = [one.owner for one in known if one.namespace == namespace]
        raise MissingObjectError(
            f'no run of "{name}" in namespace {namespace} on a shared GPU was recorded{near(name, owners)}'
        )
    return found
