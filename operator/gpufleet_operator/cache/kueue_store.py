"""Workloads of Kueue, and the pods for which quota is reserved."""

from collections.abc import Callable

from gpufleet_operator.cache.store import TombstoneStore
from gpufleet_operator.model.claims.resource_claim import PodKey
from gpufleet_operator.model.kueue.objects import KueueWorkload
from gpufleet_operator.model.lenient_json import Json


class KueueStore(TombstoneStore[KueueWorkload]):
    """Workloads by uid."""

    def __init__(self, decode: Callable[[Json], KueueWorkload | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self._reserving: dict[PodKey, str] = {}
        """Pod -> uid of the Workload that reserves quota for it."""

    @property
    def with_quota(self) -> dict[PodKey, str]:
        """The pods for which quota is reserved, as keys. A Workload reserves quota for pods of its namespace only."""
        return self._reserving

    def on_replace(self, old: KueueWorkload | None, new: KueueWorkload | None) -> None:
        if old is not None:
            for pod in old.pods:
                # A later Workload of the same pod may have been created before the deletion of this one was noticed.
                if self._reserving.get((old.namespace, pod)) == old.uid:
                    del self._reserving[old.namespace, pod]
        if new is not None and new.reserved_since is not None:
            self._reserving.update(dict.fromkeys(((new.namespace, pod) for pod in new.pods), new.uid))
