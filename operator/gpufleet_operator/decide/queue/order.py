"""The order in which workloads that wait are placed: priority, fairness between namespaces, age, name."""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from gpufleet_operator.model.replica import WorkloadReplicas

Precedence = tuple[int, datetime, str]
"""Negative priority, creation, name: the order without fairness."""


def priority_of(assessed: WorkloadReplicas) -> int:
    """Returns the highest priority of the pods, as resolved at admission."""
    return max((r.pod.priority for r in assessed.replicas if r.pod is not None), default=0)


def precedence(assessed: WorkloadReplicas) -> Precedence:
    """Sorts by pod priority, then age, then name."""
    return -priority_of(assessed), assessed.workload.created, assessed.workload.full_name


class _Entry(NamedTuple):
    key: tuple[int, bool, float, datetime, str]
    assessed: WorkloadReplicas


class QueueOrder:
    """Yields workloads in order.

    Args:
        waiting: The workloads.
        heads: UIDs of the workloads that come first within their priority.
        use: Returns the devices that each namespace uses. Called only if it matters; None: no fairness.
    """

    def __init__(
        self,
        waiting: Iterable[WorkloadReplicas],
        *,
        heads: Collection[str] = (),
        use: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self._waiting, self._heads = tuple(waiting), frozenset(heads)
        self._fair = use is not None and _several_namespaces_compete(self._waiting)
        self._use: dict[str, float] = dict(use()) if use is not None and self._fair else {}

    def __iter__(self) -> Iterator[WorkloadReplicas]:
        """Yields each workload once. Devices that `picked` records meanwhile count for the remaining workloads."""
        heap = [self._entry(assessed) for assessed in self._waiting]
        heapq.heapify(heap)
        while heap:
            entry = heapq.heappop(heap)
            current = self._entry(entry.assessed)
            if current.key > entry.key:
                heapq.heappush(heap, current)
            else:
                yield entry.assessed

    def picked(self, namespace: str, devices: float) -> None:
        """Records devices that were picked for a namespace."""
        self._use[namespace] = self._use.get(namespace, 0.0) + devices

    def _entry(self, assessed: WorkloadReplicas) -> _Entry:
        negative, created, name = precedence(assessed)
        workload = assessed.workload
        is_head = workload.uid in self._heads
        use = self._use.get(workload.namespace, 0.0) if self._fair and not is_head else 0.0
        return _Entry((negative, not is_head, use, created, name), assessed)


def _several_namespaces_compete(waiting: Iterable[WorkloadReplicas]) -> bool:
    """Returns True when workloads of several namespaces have the same priority."""
    namespaces: dict[int, str] = {}
    return any(
        namespaces.setdefault(priority_of(each), each.workload.namespace) != each.workload.namespace for each in waiting
    )
