"""What the operator knows of the cluster at this moment, and whether that changed since the last pass."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from gpufleet_operator.cache.reader import Reader
from gpufleet_operator.cache.store import LeavingStore, Store, newer
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.model.objects import BoundPod, Node, Pod, PodDeletion, Telemetry, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits, PassState
from gpufleet_operator.placement.packing import PRIOR, Mix

_DEPARTED = 20_000


class PodStore(Store[Pod]):
    """Our pods. Remembers of each one that left how it went."""

    def __init__(self, changed: asyncio.Event) -> None:
        super().__init__(changed.set)
        self.deleted_pods: OrderedDict[str, PodDeletion] = OrderedDict()

    def left(self, pod: Pod) -> None:
        """A deletion with the pod's last state: the only sure word on whether a container may still run."""
        self.deleted_pods[pod.uid] = pod.deletion
        while len(self.deleted_pods) > _DEPARTED:
            self.deleted_pods.popitem(last=False)
        self.remove(pod.uid, pod.resource_version)

    def replaced(self, old: Pod | None, new: Pod | None) -> None:
        """A pod that is back (its label was taken off and put on again) has not departed."""
        del old
        if new is not None:
            self.deleted_pods.pop(new.uid, None)


class UsageStore(LeavingStore[BoundPod]):
    """Other people's pods, with their requests summed per node as they come and go."""

    def __init__(self, changed: asyncio.Event) -> None:
        super().__init__(changed.set)
        self.per_node: dict[str, Counter[str]] = {}

    def replaced(self, old: BoundPod | None, new: BoundPod | None) -> None:
        """Move the sums along."""
        if old is not None:
            total = self.per_node[old.node]
            total.subtract(_taken(old))
            if total["pods"] <= 0:
                del self.per_node[old.node]
        if new is not None:
            self.per_node.setdefault(new.node, Counter()).update(_taken(new))


class Cache:
    """All stores. `dirty` is set by every change that can matter to a decision.

    Args:
        reader: how objects come in.
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self.reader = reader or Reader()
        self.dirty = asyncio.Event()
        self.workloads: Store[Workload] = Store(self.dirty.set)
        self.telemetry: Store[Telemetry] = Store(self.dirty.set)
        self.nodes: Store[Node] = Store(self.dirty.set)
        self.pods = PodStore(self.dirty)
        self.others = UsageStore(self.dirty)

    def read_workload(self, body: Json) -> None:
        """Take in a GPUWorkload as the apiserver told it, if it can be read."""
        if (view := self.reader.workload(body)) is not None:
            self.workloads.put(view)

    def read_telemetry(self, body: Json) -> None:
        """As `read_workload`, a GPUTelemetry."""
        if (view := self.reader.telemetry(body)) is not None:
            self.telemetry.put(view)

    def read_pod(self, body: Json) -> None:
        """As `read_workload`, a pod with our label."""
        if (view := self.reader.pod(body)) is not None:
            self.pods.put(view)

    def pod_left(self, body: Json) -> None:
        """A pod with our label is deleted; `body` is its last state."""
        if (view := self.reader.pod(body)) is not None:
            self.pods.left(view)
        else:
            self.pods.remove(*identity(body))

    def snapshot(
        self, *, now: datetime, name_seed: str, memory: PassState, limits: Limits, mix: Mix = PRIOR
    ) -> Snapshot:
        """The state at this moment. The maps are the live ones: a decision is made without giving up the loop."""
        return Snapshot(
            now=now,
            name_seed=name_seed,
            workloads=self.workloads.items,
            telemetry=_by_name(self.telemetry.items),
            pods=self.pods.items,
            deleted_pods=self.pods.deleted_pods,
            nodes=_by_name(self.nodes.items),
            others=self.others.per_node,
            memory=memory,
            limits=limits,
            mix=mix,
        )


def identity(body: Json) -> tuple[str, str]:
    """Uid and resource version of an object."""
    meta = body["metadata"]
    return str(meta["uid"]), str(meta.get("resourceVersion", ""))


def _taken(pod: BoundPod) -> dict[str, int]:
    return {**pod.requests, "pods": 1}


Named = TypeVar("Named", Telemetry, Node)


def _by_name(items: Mapping[str, Named]) -> dict[str, Named]:
    """By name; of two with the same name (the end of the old one is still on its way) the younger counts."""
    found: dict[str, Named] = {}
    for item in items.values():
        other = found.get(item.name)
        if other is None or newer(item.resource_version, other.resource_version):
            found[item.name] = item
    return found
