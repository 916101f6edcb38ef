"""Computes the share of a device with which replicas are placed: their promise, or what earlier runs used.

Only workloads with `placement.demand: Learned` are placed by what earlier runs used, and only once enough runs are
known, see `demand.statistics`. The promise itself does not change: the container gets it, and its overuse is
reported by it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpufleet_api.demand.gpu_demand import DemandStatus
from gpufleet_api.names import WORKLOAD_KIND
from gpufleet_api.workload import WorkloadSpec
from gpufleet_api.workload_placement import DemandSource
from gpufleet_operator.demand.statistics import MIN_RUNS, learned_mib
from gpufleet_operator.fleet.engine_input import share
from gpufleet_operator.model.demands.template import TemplateKey, container_images, template_key, template_of
from gpufleet_operator.model.objects import Pod, Workload
from gpufleet_operator.model.pod_state.device_containers import of_claim, of_pod, of_template
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import Diagnosis, Request, Share

Demands = Mapping[TemplateKey, DemandStatus | None]


@dataclass(frozen=True, slots=True)
class LearnedDemand:
    """Memory of each device that earlier runs used, and their number; for several containers, the largest."""

    mib: int
    runs: int

    def __str__(self) -> str:
        return f"{self.mib:,} MiB learned from {self.runs} runs"


def learned_demand(snapshot: Snapshot, workload: Workload, pods: Iterable[Pod | None]) -> LearnedDemand | None:
    """Returns the memory of each device with which the pods of a workload are placed; None: with their promise.

    Args:
        snapshot: What is known of earlier runs.
        workload: Of the pods.
        pods: Pods that are placed together: the one that needs most counts. Not read if the operator creates them: then
            the template names their images.
    """
    spec = None if workload.model is None else workload.model.spec
    if spec is None or not _learns(spec):
        return None
    found = [pod for pod in pods if pod is not None]
    if _has_other_claims(snapshot, found):
        return None
    keys = _of_pods(snapshot, spec, found) if spec.adopts else _of_workload(workload, spec)
    return _largest(spec, keys, snapshot.demands)


def demand_of_template(workload: Workload, demands: Demands) -> LearnedDemand | None:
    """Returns the learned demand of replicas that the operator creates; None: they are placed with their promise."""
    spec = None if workload.model is None else workload.model.spec
    if spec is None or spec.adopts or not _learns(spec):
        return None
    return _largest(spec, _of_workload(workload, spec), demands)


def with_demand(diagnosis: Diagnosis, snapshot: Snapshot, workload: Workload, pods: Iterable[Pod]) -> Diagnosis:
    """Returns the diagnosis with what the replicas counted with, if the workload is placed by learned demand."""
    spec = None if workload.model is None else workload.model.spec
    if spec is None or not _learns(spec):
        return diagnosis
    found = list(pods)
    learned = learned_demand(snapshot, workload, found)
    if learned is not None:
        counted = str(learned)
    elif _has_other_claims(snapshot, found):
        counted = f"the promised {spec.devices.memory_mib:,} MiB: the claims of another driver keep it"
    else:
        counted = f"the promised {spec.devices.memory_mib:,} MiB: fewer than {MIN_RUNS} runs are known"
    return replace(diagnosis, message=f"{diagnosis.message} Counted with {counted}.")


def placed_share(
    snapshot: Snapshot, workload: Workload, spec: WorkloadSpec, pods: Iterable[Pod | None]
) -> Share | None:
    """Returns the share of each device with which pods are placed; None: they get whole devices."""
    promised, learned = share(spec.devices), learned_demand(snapshot, workload, pods)
    return promised if promised is None or learned is None else replace(promised, memory_mib=learned.mib)


def with_learned_demand(
    request: Request, snapshot: Snapshot, workload: Workload, pods: Iterable[Pod], *, may_claim: bool = False
) -> Request:
    """Returns the request for the share with which the pods are placed.

    Args:
        request: For the promise.
        snapshot: What is known of earlier runs.
        workload: Of the pods.
        pods: That are placed together.
        may_claim: Whether the pods may be replaced by others that have a claim.
    """
    if may_claim and snapshot.limits.claims_keep_promise:
        return request
    return with_share(request, learned_demand(snapshot, workload, pods))


def with_share(request: Request, learned: LearnedDemand | None) -> Request:
    """Returns the request for this memory instead of the promise; None: as it is."""
    promised = request.devices.share
    if promised is None or learned is None:
        return request
    return replace(request, devices=replace(request.devices, share=replace(promised, memory_mib=learned.mib)))


def _learns(spec: WorkloadSpec) -> bool:
    return spec.placement.demand is DemandSource.LEARNED and spec.devices.memory_mib is not None


def _has_other_claims(snapshot: Snapshot, pods: Iterable[Pod]) -> bool:
    return snapshot.limits.claims_keep_promise and any(pod.device_claim is not None for pod in pods)


def _largest(spec: WorkloadSpec, keys: Iterable[TemplateKey], demands: Demands) -> LearnedDemand | None:
    """Returns the demand of the container that needs most; None unless enough is known of each."""
    found = []
    for key in keys:
        status = demands.get(key)
        mib = learned_mib(spec.devices.memory_mib or 0, status)
        if mib is None or status is None:
            return None
        found.append(LearnedDemand(mib, status.counted_runs))
    return max(found, key=lambda one: one.mib, default=None)


def _of_workload(workload: Workload, spec: WorkloadSpec) -> list[TemplateKey]:
    images = dict(container_images(spec.pod_spec))
    return [
        template_key(workload.namespace, WORKLOAD_KIND, workload.name, name, images.get(name, ""))
        for name in of_template(spec)
    ]


def _of_pods(snapshot: Snapshot, spec: WorkloadSpec, pods: Iterable[Pod]) -> list[TemplateKey]:
    resource = snapshot.limits.resources.name_for(spec.devices)
    return [
        template_of(pod, container)
        for pod in pods
        for container in (of_pod(pod, resource) if pod.device_claim is None else of_claim(spec, pod))
    ]
