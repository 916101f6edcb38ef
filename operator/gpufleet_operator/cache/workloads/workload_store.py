"""Stores GPUWorkloads with their statuses, also those that are held back."""

from collections.abc import Callable
from dataclasses import replace

from gpufleet_api.workload_status import WorkloadStatus
from gpufleet_operator.cache.store import TombstoneStore, newer
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.model.objects import Workload


class WorkloadStore(TombstoneStore[Workload]):
    """GPUWorkloads. A status that is held back is set already, so that the next decisions are based on it.

    The status has no other writer, so versions that others write keep it.
    """

    def __init__(self, decode: Callable[[Json], Workload | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self._stored: dict[str, Workload] = {}
        """Objects with a status that is held back, as the apiserver has them."""

    def hold(self, uid: str, status: WorkloadStatus) -> None:
        """Sets a status that is held back."""
        item = self.items.get(uid)
        if item is not None:
            self._stored.setdefault(uid, item)
            super().put(_with_status(item, status))

    def give_up(self, uid: str) -> None:
        """Restores the status that the apiserver has, after a failed write."""
        stored = self._stored.pop(uid, None)
        if stored is not None:
            super().put(stored)

    def apply_written(self, body: Json) -> None:
        """Applies the response to the write of a status.

        The watch may be faster: then this version is cached already, but with the status that was held before.
        """
        stored = self._stored.pop(body["metadata"]["uid"], None)
        item = self.decode(body)
        if stored is not None and (item is None or newer(stored.resource_version, item.resource_version)):
            item = stored
        if item is not None:
            super().put(item)

    def put(self, item: Workload) -> None:
        stored = self._stored.get(item.uid)
        if stored is None:
            super().put(item)
        elif not newer(stored.resource_version, item.resource_version):
            self._stored[item.uid] = item
            held = self.items[item.uid]
            super().put(replace(item, status=held.status, stored_placements=held.stored_placements))

    def remove(self, uid: str, version: str) -> None:
        self._stored.pop(uid, None)
        super().remove(uid, version)


def _with_status(workload: Workload, status: WorkloadStatus) -> Workload:
    return replace(workload, status=status, stored_placements={p.replica: p for p in status.placements})
