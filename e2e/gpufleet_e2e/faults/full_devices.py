"""Shared devices that two pods fill, of which one may use more than it was promised."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gpufleet_e2e.support.api import JsonObject, workloads
from gpufleet_e2e.support.fleet import Fleet
from gpufleet_e2e.support.install import HEARTBEAT_SECONDS
from gpufleet_e2e.support.manifests import gpuworkload
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.sandbox import TestNamespace
from gpufleet_simgpu.model import SimProcess

OVER, WITHIN = 42_000, 39_000
"""MiB that the two holders of each device use: 99.9 % of its usable 81,080 MiB together."""
SAMPLES = 4
MOVED_SECONDS = (SAMPLES + 1) * 1.1 * HEARTBEAT_SECONDS + 15
"""From the first full sample: a pod is moved within 15 s of the fourth one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two workloads on one device. The first uses `OVER`, the second `WITHIN`, which it was promised."""

    name: str
    promised: int
    placement: Mapping[str, str]

    @property
    def names(self) -> tuple[str, str]:
        return self.name, f"{self.name}-quiet"


class Crowd:
    """The pairs, each on a device of its own, and the processes of their containers.

    Once they are placed, the first of each pair may also use `spare` more devices; without any, those of the others.

    Args:
        namespace: Where they run.
        fleet: The test cluster.
        pairs: What they are promised.
        spare: Number of devices with room.
        first: Index of the first device. A device from which a pod was to be moved rests for a minute.
    """

    def __init__(
        self, namespace: TestNamespace, fleet: Fleet, pairs: Sequence[Pair], *, spare: int, first: int = 0
    ) -> None:
        self.node = fleet.nodes[1]
        self._namespace, self._fleet, self._pairs = namespace, fleet, pairs
        uuids = fleet.gpus[self.node].uuids[first:]
        self.spare = uuids[len(pairs) : len(pairs) + spare]
        self.devices: dict[str, str] = {}
        for pair, uuid in zip(pairs, uuids, strict=False):
            self.devices |= dict.fromkeys(pair.names, uuid)
            namespace.apply(*self._workloads(pair, uuid))
        namespace.verify(*self.devices)
        for pair in pairs:
            included = sorted({self.devices[pair.name], *(self.spare or self.devices.values())})
            patch = {"spec": {"requirements": {"includeUUIDs": included}}}
            fleet.api.patch(f"{workloads(namespace.name)}/{pair.name}", patch)
        self._pids = {
            name: eventually(partial(fleet.processes, self.node, namespace.pod(name)), within=30)
            for name in self.devices
        }

    def _workloads(self, pair: Pair, uuid: str) -> Iterator[JsonObject]:
        over, within = pair.names
        shared = {"mode": "Shared", "memoryMiB": WITHIN}
        yield gpuworkload(within, devices=shared, uuids=(uuid,))
        yield gpuworkload(
            over,
            devices={"mode": "Shared", "memoryMiB": pair.promised},
            uuids=(uuid,),
            labels={"app": over},
            placement=pair.placement,
        )

    def fill(self) -> None:
        """Makes the driver report that the processes of each pair fill their device."""
        for pair in self._pairs:
            uses = dict(zip(pair.names, (OVER, WITHIN), strict=True))
            processes = [SimProcess(pid, total // 2) for name, total in uses.items() for pid in self._pids[name]]
            self._fleet.gpus[self.node].report(
                self.devices[pair.name], processes=tuple(processes), memory_used_mib=OVER + WITHIN
            )

    def identities(self) -> dict[str, tuple[str, str]]:
        """Returns the UID of each pod and the ID of its container."""
        found = {}
        for name in self.devices:
            pod = self._namespace.pod(name)
            found[name] = pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["containerID"]
        return found
