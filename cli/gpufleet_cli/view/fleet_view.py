"""The fleet as one value: GPUs, workloads and pods with the references between them. Built from lists of objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from gpufleet_cli.freshness import Renewals
from gpufleet_cli.view.gpu_view import GPUView, NodeGPUs, node_gpus
from gpufleet_cli.view.pod_view import PodView, pod_view
from gpufleet_cli.view.workload_view import WorkloadView, workload_view
from gpufleet_operator.model.lenient_json import Json


@dataclass(frozen=True)
class FleetView:
    """Nodes by name; pods and workloads by namespace and name."""

    nodes: Mapping[str, NodeGPUs] = field(default_factory=dict)
    workloads: Mapping[tuple[str, str], WorkloadView] = field(default_factory=dict)
    pods: Mapping[tuple[str, str], PodView] = field(default_factory=dict)

    @property
    def gpus(self) -> Iterable[GPUView]:
        """Returns all GPUs, by node and index."""
        return (gpu for name in sorted(self.nodes) for gpu in self.nodes[name].gpus)

    @cached_property
    def gpus_by_uuid(self) -> Mapping[str, GPUView]:
        return {gpu.uuid: gpu for gpu in self.gpus}

    def pods_of(self, workload: WorkloadView) -> list[PodView]:
        """Returns the pods of a workload, by replica and name."""
        return self._pods_by_workload.get((workload.namespace, workload.name), [])

    @cached_property
    def _pods_by_workload(self) -> Mapping[tuple[str, str | None], list[PodView]]:
        found: dict[tuple[str, str | None], list[PodView]] = {}
        for pod in sorted(self.pods.values(), key=lambda p: (p.replica is None, p.replica or 0, p.name)):
            found.setdefault((pod.namespace, pod.workload), []).append(pod)
        return found


def fleet_view(
    telemetry: Iterable[Json] = (),
    workloads: Iterable[Json] = (),
    pods: Iterable[Json] = (),
    now: datetime | None = None,
    renewals: Renewals | None = None,
) -> FleetView:
    """Builds the view.

    Args:
        telemetry: GPUTelemetries.
        workloads: GPUWorkloads.
        pods: Pods.
        now: The time of the read; None: ages do not count.
        renewals: Renewals of the Leases of agents; None: none.
    """
    nodes = (node_gpus(one, now, renewals) for one in telemetry)
    decoded = (pod_view(one) for one in pods)
    listed = (workload_view(one) for one in workloads)
    return FleetView(
        {one.node: one for one in nodes},
        {(one.namespace, one.name): one for one in listed},
        {(one.namespace, one.name): one for one in decoded},
    )
