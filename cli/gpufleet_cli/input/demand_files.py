"""Replaces promises by what earlier runs used, for workloads with `placement.demand: Learned`."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gpufleet_api.demand.gpu_demand import GPUDemand
from gpufleet_api.workload_placement import DemandSource
from gpufleet_cli.input.decode import decode
from gpufleet_cli.input.documents import Document
from gpufleet_cli.input.manifests import Manifest, as_stored
from gpufleet_operator.demand.learned_share import Demands, LearnedDemand, demand_of_template, with_share
from gpufleet_operator.demand.statistics import MIN_RUNS
from gpufleet_operator.model.demands.template import TemplateKey


def learns(manifest: Manifest) -> bool:
    """Returns True if a workload is placed by what earlier runs used."""
    return manifest.model.spec.placement.demand is DemandSource.LEARNED


class KnownDemands:
    """The GPUDemands of a cluster, or saved ones."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Decodes them. Raises InputError for one that the apiserver would reject."""
        found = ((_key(model), model) for model in (decode(GPUDemand, document) for document in documents))
        # Like the operator, which finds them by their names.
        self._by_template: Demands = {key: one.status for key, one in found if one.metadata.name == key.name}

    def apply(self, manifest: Manifest) -> Manifest:
        """Returns a workload that requests its learned demand, if enough earlier runs are known."""
        return replace(manifest, request=with_share(manifest.request, self._learned(manifest)))

    def notes(self, manifests: Iterable[Manifest]) -> Iterator[str]:
        """Yields a note for each workload with learned demand."""
        for manifest in filter(learns, manifests):
            learned, promised = self._learned(manifest), manifest.model.spec.devices.memory_mib or 0
            if learned is not None:
                yield f"{manifest.name}: counted with {learned}, promised {promised:,} MiB"
            else:
                why = (
                    "its pods are not known" if manifest.model.spec.adopts else f"fewer than {MIN_RUNS} runs are known"
                )
                yield f"{manifest.name}: counted with the promised {promised:,} MiB: {why}"

    def _learned(self, manifest: Manifest) -> LearnedDemand | None:
        return demand_of_template(as_stored(manifest.model), self._by_template)


def _key(model: GPUDemand) -> TemplateKey:
    spec, namespace = model.spec, model.metadata.namespace or "default"
    return TemplateKey(namespace, spec.owner.kind, spec.owner.name, spec.container, spec.image)
