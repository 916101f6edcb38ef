"""What the workloads seen so far ask for: the mix of requests that strategy Pack keeps the fleet usable for.

Nothing of it is stored. A workload counts once, when it is first seen, with all of its replicas; it goes on counting
when it is gone, and fades with those that come after it. A restart begins with the workloads that exist.
"""

from collections.abc import Collection, Iterable

from gpufleet_operator.decide.template_check import judge
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.model.extended_resources import DEFAULTS, Resources
from gpufleet_operator.model.objects import Telemetry, Workload
from gpufleet_operator.placement.packing import Census, Mix, PodType

_MOST_CPU_MILLI = 10**9
_MOST_MEMORY_BYTES = 2**50
"""A million CPUs, a pebibyte: no node has more, so who asks for it is never placed and says nothing of the usual."""


class Demand:
    """Learns from pass to pass.

    Args:
        resources: the extended resources that stand for devices.
    """

    def __init__(self, resources: Resources = DEFAULTS) -> None:
        self._resources = resources
        self._census = Census()
        self._counted: frozenset[str] = frozenset()
        """Uids of workloads; those that are gone are forgotten, since no other gets their uid."""

    def mix(self, workloads: Collection[Workload], telemetry: Collection[Telemetry]) -> Mix:
        """The mix after everything that exists now; the very same object until enough is new.

        Args:
            workloads: all that exist.
            telemetry: of all nodes. A share is a part of a device, so shares count once there is a device to measure
                them on.
        """
        new = [w for w in workloads if w.uid not in self._counted]
        if new:
            device = _usual_memory_mib(telemetry)
            new.sort(key=lambda w: (w.created, w.full_name))
            counted = {w.uid for w in new if self._count(w, device)}
            self._counted = self._counted.intersection(w.uid for w in workloads) | counted
        return self._census.mix

    def _count(self, workload: Workload, device_memory_mib: int) -> bool:
        """False: it can't be measured yet."""
        if workload.model is None or judge(workload, workload.model, self._resources).problems:
            return True  # its conditions say so, and it gets no pods
        asked = request(workload.model, resources=self._resources)
        if asked.pod.cpu_milli > _MOST_CPU_MILLI or asked.pod.memory_bytes > _MOST_MEMORY_BYTES:
            return True
        if asked.devices.share is not None and not device_memory_mib:
            return False
        self._census.observe(PodType.of(asked, device_memory_mib), len(asked.replicas))
        return True


def _usual_memory_mib(telemetry: Iterable[Telemetry]) -> int:
    """The memory of the device in the middle, by memory; 0 when none is known."""
    known = sorted(
        device.memory_total_mib
        for node in telemetry
        if node.status is not None
        for device in node.status.devices
        if device.memory_total_mib
    )
    return known[len(known) // 2] if known else 0
