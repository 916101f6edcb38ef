"""The replica index of each pod that has another owner.

The index is taken from the labels of the owner where they have one, else it is the lowest free one. A pod that has
devices keeps the index of its reservation. A gated pod keeps that in the status, unless its labels say how it is
sorted: the pods of a gang are placed when all of them exist, and only then is their order known.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpufleet_operator.model.objects import Pod


@dataclass(frozen=True, slots=True)
class IndexedPods:
    by_index: Mapping[int, Pod]
    surplus: tuple[Pod, ...]
    """Pods without a place: each index has an older pod."""


def index_pods(pods: Iterable[Pod], known: Mapping[str, int], size: int, *, closed: bool) -> IndexedPods:
    """Gives each pod an index.

    Args:
        pods: Those that have not ended.
        known: Index by pod uid, from reservations and status.
        size: Indices are below it.
        closed: The pods form one group, such as a gang: a pod whose own index is taken gets no other one.
    """
    ordered = sorted(pods, key=lambda p: (p.uid not in known, p.created, p.uid))
    found: dict[int, Pod] = {}
    rest = []
    for pod in ordered:
        index = own_index(pod, known)
        if index is not None and index < size and index not in found:
            found[index] = pod
        else:
            rest.append(pod)
    sortable = sorted((p for p in rest if len(p.rank) > 1), key=lambda p: (p.rank, p.created, p.uid))
    surplus = []
    for pod in (*sortable, *(p for p in rest if len(p.rank) <= 1)):
        index = None if closed and len(pod.rank) == 1 else _free_index(pod, found, size)
        if index is None:
            surplus.append(pod)
        else:
            found[index] = pod
    return IndexedPods(found, tuple(surplus))


def known_indices(pods: Iterable[Pod], reserved: Mapping[str, int], stored: Mapping[str, int]) -> dict[str, int]:
    """Returns the indices that pods keep, by uid.

    Args:
        pods: Pods of one workload.
        reserved: Indices in reservations.
        stored: Indices in the status.
    """
    known = {}
    for pod in pods:
        index = reserved.get(pod.uid)
        if index is None and not (pod.gates and pod.rank):
            index = stored.get(pod.uid)
        if index is not None:
            known[pod.uid] = index
    return known


def own_index(pod: Pod, known: Mapping[str, int]) -> int | None:
    """Returns the index that a pod had before, or that its owner gave it; None: neither."""
    if pod.uid in known:
        return known[pod.uid]
    return pod.rank[0] if len(pod.rank) == 1 else None


def _free_index(pod: Pod, found: Mapping[int, Pod], size: int) -> int | None:
    """Returns the lowest free index after those of the pods that are sorted before this one; else the lowest."""
    start = _after_smaller(pod, found) if len(pod.rank) > 1 else 0
    return next((index for index in (*range(start, size), *range(min(start, size))) if index not in found), None)


def _after_smaller(pod: Pod, found: Mapping[int, Pod]) -> int:
    smaller = (index for index, other in found.items() if len(other.rank) > 1 and other.rank < pod.rank)
    return max(smaller, default=-1) + 1
