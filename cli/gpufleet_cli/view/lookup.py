"""Finds what a user names: a GPU by UUID, start of a UUID or NODE/INDEX, a pod, a workload, or a node."""

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from gpufleet_cli.cluster.failures import near
from gpufleet_cli.errors import InputError, MissingObjectError
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView

T = TypeVar("T")
_MIN_PREFIX = 4
ELSEWHERE: Final = ", which has no GPUWorkload: see gpufleet status -A"
"""The end of a message about a namespace in which there is none."""


def split_name(name: str, namespace: str) -> tuple[str, str]:
    """Returns namespace and name of `[NAMESPACE/]NAME`, also of `KIND/NAME` as kubectl prints it.

    Raises:
        InputError: The name is empty, or has several slashes.
    """
    before, slash, after = name.rpartition("/")
    if not after or "/" in before or (slash and not before):
        raise InputError(f'Invalid value: "{name}": must be NAME or NAMESPACE/NAME')
    if not slash or before.split(".")[0].lower() in ("pod", "pods", "gpuworkload", "gpuworkloads", "gpuw"):
        return namespace, after
    return before, after


def find_gpu(view: FleetView, name: str) -> GPUView | None:
    """Returns the GPU of a UUID, of the start of one, or of NODE/INDEX; None: there is none.

    Raises:
        InputError: The start of a UUID is that of several GPUs.
        MissingObjectError: The node has no GPU of this index.
    """
    node, slash, index = name.rpartition("/")
    if slash and node in view.nodes:
        known = {str(gpu.index): gpu for gpu in view.nodes[node].gpus}
        if index not in known:
            raise MissingObjectError(f'node "{node}" has no GPU "{index}": it has {", ".join(known) or "none"}')
        return known[index]
    found = [gpu for gpu in view.gpus if gpu.uuid == name]
    if not found and len(name) >= _MIN_PREFIX:
        found = [gpu for gpu in view.gpus if gpu.uuid.removeprefix("GPU-").startswith(name.removeprefix("GPU-"))]
    if len(found) > 1:
        listed = ", ".join(f"{gpu.node}/{gpu.index}" for gpu in found[:5])
        raise InputError(f"{name} is the start of several UUIDs ({listed}): use more of it, or NODE/INDEX")
    return found[0] if found else None


def gpu(view: FleetView, name: str) -> GPUView:
    """Returns the GPU. Raises InputError when there is none or it is ambiguous."""
    found = find_gpu(view, name)
    if found is None:
        known = [gpu.uuid for gpu in view.gpus] + [f"{gpu.node}/{gpu.index}" for gpu in view.gpus]
        raise MissingObjectError(f'GPU "{name}" not found{near(name, known)}')
    return found


def named(kind: str, name: str, namespace: str, known: Mapping[tuple[str, str], T]) -> T:
    """Returns the object of `[NAMESPACE/]NAME`. Raises MissingObjectError with names that are close."""
    key = split_name(name, namespace)
    if key in known:
        return known[key]
    hint = near(key[1], names(known, key[0])) or ELSEWHERE
    raise MissingObjectError(f'{kind} "{key[1]}" not found in namespace {key[0]}{hint}')


def names(known: Iterable[tuple[str, str]], namespace: str) -> list[str]:
    """Returns the names in a namespace; if there are none, `namespace/name` of all others."""
    here = sorted({name for space, name in known if space == namespace})
    return here or sorted(f"{space}/{name}" for space, name in known)
