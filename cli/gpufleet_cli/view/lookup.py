"""Finds what a user names: a GPU by UUID, start of a UUID or NODE/INDEX, a pod, a workload, or a node."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from gpufleet_cli.cluster.failures import near
from gpufleet_cli.errors import InputError, MissingObjectError
from gpufleet_cli.view.fleet_view import FleetView
from gpufleet_cli.view.gpu_view import GPUView

T = TypeVar("T")
_MIN_PREFIX = 4


def split_name(name: str, namespace: str) -> tuple[str, str]:
    """Returns namespace and name of `[NAMESPACE/]NAME`, also of `KIND/NAME` as kubectl prints it."""
    before, slash, after = name.rpartition("/")
    if not slash or before.split(".")[0].lower() in ("pod", "pods", "gpuworkload", "gpuworkloads", "gpuw"):
        return namespace, after
    return before, after


def find_gpu(view: FleetView, name: str) -> GPUView | None:
    """Returns the GPU of a UUID, of the start of one, or of NODE/INDEX; None: there is none.

    Raises:
        InputError: The start of a UUID is that of several GPUs.
    """
    node, slash, index = name.rpartition("/")
    if slash and node in view.nodes:
        return next((gpu for gpu in view.nodes[node].gpus if str(gpu.index) == index), None)
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
    raise MissingObjectError(f'{kind} "{key[1]}" not found in namespace {key[0]}{near(key[1], names(known, key[0]))}')


def names(known: Iterable[tuple[str, str]], namespace: str) -> list[str]:
    """Returns the names in a namespace; if there are none, `namespace/name` of all others."""
    here = sorted({name for space, name in known if space == namespace})
    return here or sorted(f"{space}/{name}" for space, name in known)
