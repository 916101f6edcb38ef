"""Stores GPUDemands by template."""

from collections.abc import Callable

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_operator.cache.store import TombstoneStore
from gpufleet_operator.model.demands.gpu_demand import Demand
from gpufleet_operator.model.demands.template import TemplateKey
from gpufleet_operator.model.lenient_json import Json


class DemandStore(TombstoneStore[Demand]):
    """GPUDemands.

    Args:
        decode: Returns the stored form of a JSON object.
        learned: Called with the namespace of a template whose learned demand changed.
    """

    def __init__(self, decode: Callable[[Json], Demand | None], learned: Callable[[str], None]) -> None:
        super().__init__(decode, lambda: None)
        self._learned = learned
        self.by_template: dict[TemplateKey, DemandStatus | None] = {}
        """Ignores objects whose name differs from the one that the operator gives them."""
        self._uids: dict[TemplateKey, str] = {}

    def on_replace(self, old: Demand | None, new: Demand | None) -> None:
        old, new = _own(old), _own(new)
        if new is not None:
            self.by_template[new.key] = new.status
            self._uids[new.key] = new.uid
        elif old is not None and self._uids.get(old.key) == old.uid:  # else it was created again
            del self.by_template[old.key], self._uids[old.key]
        if _statistics(old) != _statistics(new):
            for namespace in {one.namespace for one in (old, new) if one is not None}:
                self._learned(namespace)


def _own(demand: Demand | None) -> Demand | None:
    """Returns the object if it has the name that the operator gives it."""
    return demand if demand is not None and demand.name == demand.key.name else None


def _statistics(demand: Demand | None) -> tuple[int, int | None]:
    """Returns the part that placement depends on."""
    status = None if demand is None else demand.status
    return (0, None) if status is None else (status.counted_runs, status.p80_mib)
