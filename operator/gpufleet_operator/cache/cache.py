"""The operator's copy of the cluster, and whether it changed since the last pass."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime

from gpufleet_operator.cache import decode, decode_pod
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.cache.store import NamedStore, SelectorStore, TombstoneStore
from gpufleet_operator.model.cluster.change_tracker import ChangeTracker
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.model.node_leases import NodeLeases
from gpufleet_operator.model.objects import BoundPod, Node, Pod, PodDeletion, Service, Telemetry, Workload
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.model.state_types import Limits, PassState, TemplateCheck
from gpufleet_operator.placement.packing import PRIOR, Mix

_MAX_DELETED_PODS = 20_000


class PodStore(TombstoneStore[Pod]):
    """Pods of workloads. Records the last state of each deleted pod."""

    def __init__(self, decode: Callable[[Json], Pod | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self.deleted: OrderedDict[str, PodDeletion] = OrderedDict()

    def delete(self, body: Json) -> None:
        """Removes a deleted pod. Its last state is the only proof of whether a container may still run."""
        pod = self.decode(body)
        if pod is None:
            super().delete(body)
        else:
            self.record_deletion(pod)

    def record_deletion(self, pod: Pod) -> None:
        self.deleted[pod.uid] = pod.deletion
        while len(self.deleted) > _MAX_DELETED_PODS:
            self.deleted.popitem(last=False)
        self.remove(pod.uid, pod.resource_version)

    def on_replace(self, old: Pod | None, new: Pod | None) -> None:
        """Forgets the deletion of a pod that returned: its label was removed and added again."""
        del old
        if new is not None:
            self.deleted.pop(new.uid, None)


class OtherPodStore(SelectorStore[BoundPod]):
    """Pods without a workload, with the sum of their requests per node."""

    def __init__(self, decode: Callable[[Json], BoundPod | None], changed: Callable[[], None]) -> None:
        super().__init__(decode, changed)
        self.requests: dict[str, Counter[str]] = {}
        """Node name -> resource -> amount; the number of pods is under `pods`."""

    def on_replace(self, old: BoundPod | None, new: BoundPod | None) -> None:
        if old is not None:
            total = self.requests[old.node]
            total.subtract(_requests(old))
            if total["pods"] <= 0:
                del self.requests[old.node]
        if new is not None:
            self.requests.setdefault(new.node, Counter()).update(_requests(new))


class Cache:
    """All stores. `dirty` is set by each change that can affect a decision.

    Args:
        decoder: Decodes the objects.
    """

    def __init__(self, decoder: Decoder | None = None) -> None:
        decoder = decoder or Decoder()
        self.dirty = asyncio.Event()
        changed = self.dirty.set
        self.tracker = ChangeTracker()
        self.workloads: TombstoneStore[Workload] = TombstoneStore(decoder.bind(decode.workload), changed)
        self.telemetry: NamedStore[Telemetry] = NamedStore(decoder.bind(decode.telemetry), changed)
        self.nodes: NamedStore[Node] = NamedStore(decoder.bind(decode.node), changed)
        self.pods = PodStore(decoder.bind(decode_pod.pod), changed)
        self.services: SelectorStore[Service] = SelectorStore(decoder.bind(decode.service), changed)
        self.other_pods = OtherPodStore(decoder.bind(decode.bound_pod), changed)
        self.node_leases = NodeLeases()
        self.workloads.observer = self.tracker.workload
        self.telemetry.observer = self.tracker.telemetry
        self.nodes.observer = self.tracker.node
        self.pods.observer = self.tracker.pod
        self.services.observer = self.tracker.service
        self.other_pods.observer = self.tracker.other_pod

    def snapshot(
        self,
        *,
        now: datetime,
        name_seed: str,
        templates: Mapping[str, TemplateCheck],
        state: PassState,
        limits: Limits,
        mix: Mix = PRIOR,
    ) -> Snapshot:
        """Returns the current state. Its maps are not copies: `decide` runs without yielding to the event loop."""
        return Snapshot(
            now=now,
            name_seed=name_seed,
            workloads=self.workloads.items,
            telemetry=self.telemetry.by_name,
            pods=self.pods.items,
            deleted_pods=self.pods.deleted,
            nodes=self.nodes.by_name,
            services=self.services.items,
            other_requests=self.other_pods.requests,
            node_leases=self.node_leases,
            other_pods=self.other_pods.items,
            templates=templates,
            previous_state=state,
            limits=limits,
            mix=mix,
        )


def _requests(pod: BoundPod) -> dict[str, int]:
    return {**pod.requests, "pods": 1}
