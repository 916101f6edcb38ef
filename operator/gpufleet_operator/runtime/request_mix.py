"""Learns the mix of requests, for which strategy Pack keeps the fleet usable, from the workloads seen so far.

A workload counts once, with all of its replicas, when it is first seen. It still counts after its deletion, with less
and less weight as others follow. Nothing is stored: a restart begins with the existing workloads.
"""

from collections.abc import Collection, Iterable, Mapping

from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.objects import Telemetry, Workload
from gpufleet_operator.model.state_types import TemplateCheck
from gpufleet_operator.placement.packing import Mix, MixEstimator, PodType

_MAX_CPU_MILLI = 10**9
_MAX_MEMORY_BYTES = 2**50
"""Requests above these bounds fit no node and are left out of the mix."""


class RequestMix:
    """The mix of requests.

    Args:
        resources: The extended resources of devices.
    """

    def __init__(self, resources: Resources = DEFAULTS) -> None:
        self._resources = resources
        self._census = MixEstimator()
        self._counted: set[str] = set()
        """Uids of existing workloads. Those of deleted ones are dropped, as they never return."""
        self._unknown: set[str] = set()
        """Uids of workloads whose size is unknown yet."""

    def update(
        self,
        workloads: Mapping[str, Workload],
        telemetry: Mapping[str, Telemetry],
        templates: Mapping[str, TemplateCheck],
        changed: Collection[str] | None = None,
    ) -> Mix:
        """Counts new workloads and returns the mix: the same object until it changes enough.

        Args:
            workloads: All that exist, by uid.
            telemetry: Of all nodes. Requests for shares count once the memory of a device is known, as they are parts
                of it.
            templates: The check of each workload that parses, by uid.
            changed: Uids of the workloads that may be new or gone; None: of all.
        """
        if changed is None:
            changed = self._counted | workloads.keys()
        self._counted -= {uid for uid in changed if uid not in workloads}
        new = [workloads[uid] for uid in self._unknown.union(changed) if uid in workloads and uid not in self._counted]
        self._unknown.clear()
        new.sort(key=lambda w: (w.created, w.full_name))
        for workload in new:
            known = self._count(workload, templates.get(workload.uid), telemetry)
            (self._counted if known else self._unknown).add(workload.uid)
        return self._census.mix

    def _count(self, workload: Workload, template: TemplateCheck | None, telemetry: Mapping[str, Telemetry]) -> bool:
        """Counts a workload. Returns False if its size is unknown yet."""
        if workload.model is None or template is None or template.errors:
            return True  # invalid: it gets no pods
        pod_type = template.pod_type
        if pod_type is None:
            requested = request(workload.model, resources=self._resources)
            # Of whole devices the memory does not matter; to sort the memory of a large fleet takes milliseconds.
            device_memory_mib = 0 if requested.devices.share is None else _median_memory_mib(telemetry.values())
            if requested.devices.share is not None and not device_memory_mib:
                return not _fits_a_node(requested.pod.cpu_milli, requested.pod.memory_bytes)
            pod_type = PodType.of(requested, device_memory_mib)
        if _fits_a_node(pod_type.cpu_milli, pod_type.memory_bytes):
            self._census.observe(pod_type, workload.model.spec.replicas)
        return True


def _fits_a_node(cpu_milli: int, memory_bytes: int) -> bool:
    return cpu_milli <= _MAX_CPU_MILLI and memory_bytes <= _MAX_MEMORY_BYTES


def _median_memory_mib(telemetry: Iterable[Telemetry]) -> int:
    """Returns the median device memory, without what drivers reserve; 0 if unknown."""
    known = sorted(
        max(0, device.memory_total_mib - (device.memory_reserved_mib or 0))
        for node in telemetry
        if node.status is not None
        for device in node.status.devices
        if device.memory_total_mib
    )
    return known[len(known) // 2] if known else 0
