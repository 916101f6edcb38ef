"""GPUDemands: memory that earlier runs of a template were promised and used, and the recommended promise."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpufleet_api.names import WORKLOAD_KIND
from gpufleet_operator.model.demands.template import template_key
from gpufleet_operator.model.lenient_json import Json, as_map, number, text

_MIB_PER_GIB = 1024


@dataclass(frozen=True, slots=True)
class DemandView:
    """A GPUDemand. Memory is that of each device, in MiB."""

    namespace: str
    name: str
    owner_kind: str
    owner: str
    container: str
    image: str
    runs: int
    """Runs that the numbers are about; without one they are None."""
    total_runs: int
    promised_mib: int | None
    median_mib: int | None
    p80_mib: int | None
    max_mib: int | None
    recommended_mib: int | None

    @property
    def message(self) -> str:
        """Returns the recommendation as a sentence."""
        promised, most, wanted = self.promised_mib, self.max_mib, self.recommended_mib
        if promised is None or most is None or wanted is None:
            return "no run was observed for long enough yet"
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        used = f"promised {amount(promised)}, used at most {amount(most)} in {runs}"
        if most > promised:
            return f"{used}; memoryMiB: {wanted} is needed"
        return f"{used}; memoryMiB: {wanted} is enough" if wanted < promised else f"{used}; keep memoryMiB"


def amount(mib: int) -> str:
    """Returns an amount of memory for people, such as `12.3 GiB`."""
    return f"{mib} MiB" if mib < _MIB_PER_GIB else f"{mib / _MIB_PER_GIB:.1f}".removesuffix(".0") + " GiB"


def demand_views(bodies: Iterable[Json]) -> list[DemandView]:
    """Returns the GPUDemands by namespace, owner and container."""
    found = [_view(body) for body in bodies]
    return sorted(found, key=lambda one: (one.namespace, one.owner_kind, one.owner, one.container, one.image))


def of_owner(demands: Iterable[DemandView], namespace: str, name: str) -> list[DemandView]:
    """Returns the GPUDemands of an owner. The name may have the suffix of a run."""
    names = {name, template_key(namespace, WORKLOAD_KIND, name, "", "").owner}
    return [one for one in demands if one.namespace == namespace and one.owner in names]


def _view(body: Json) -> DemandView:
    meta, spec, status = as_map(body.get("metadata")), as_map(body.get("spec")), as_map(body.get("status"))
    owner = as_map(spec.get("owner"))

    def mib(field: str) -> int | None:
        return number(status[field]) if field in status else None

    return DemandView(
        namespace=text(meta.get("namespace")) or "default",
        name=text(meta.get("name")),
        owner_kind=text(owner.get("kind")),
        owner=text(owner.get("name")),
        container=text(spec.get("container")),
        image=text(spec.get("image")),
        runs=number(status.get("countedRuns")),
        total_runs=number(status.get("totalRuns")),
        promised_mib=mib("promisedMiB"),
        median_mib=mib("medianMiB"),
        p80_mib=mib("p80MiB"),
        max_mib=mib("maxMiB"),
        recommended_mib=mib("recommendedMiB"),
    )
