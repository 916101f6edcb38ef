"""The operator's copy of the cluster, and whether it changed since the last pass."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from gpufleet_api.workload_placement import DemandSource
from gpufleet_operator.cache import decode, decode_claim, decode_demand, decode_kueue, decode_pod
from gpufleet_operator.cache.claim_store import ClaimStore
from gpufleet_operator.cache.decode import Decoder
from gpufleet_operator.cache.demand_store import DemandStore
from gpufleet_operator.cache.kueue_store import KueueStore
from gpufleet_operator.cache.quotas.quota_store import QuotaStore, resource_quota
from gpufleet_operator.cache.store import NamedStore, SelectorStore, TombstoneStore
from gpufleet_operator.cache.telemetry.decode_lease import agent_lease
from gpufleet_operator.cache.telemetry.telemetry_store import AgentLeaseStore, TelemetryStore
from gpufleet_operator.cache.workloads.workload_store import WorkloadStore
from gpufleet_operator.model.cluster.change_tracker import ChangeTracker
from gpufleet_operator.model.cluster.telemetry_outage import TelemetryOutage
from gpufleet_operator.model.kueue.objects import AdmissionCheck
from gpufleet_operator.model.lenient_json import Json
from gpufleet_operator.model.node_leases import NodeLeases
from gpufleet_operator.model.objects import BoundPod, Node, Pod, PodDeletion, PodPhase, Service
from gpufleet_operator.model.snapshot import UNLIMITED, Snapshot
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
        known = self.items.get(pod.uid)
        if known is not None and known.deleting:  # by this process
            pod = replace(pod, deleting=True)
        if known is not None and known.phase is PodPhase.SUCCEEDED and not known.deleting:
            # Deleted in the second in which it ended: it was seen as succeeded before the request.
            pod = replace(pod, deletion_requested=None)
        before = self.deleted.get(pod.uid)
        self.deleted[pod.uid] = pod.deletion
        while len(self.deleted) > _MAX_DELETED_PODS:
            self.deleted.popitem(last=False)
        self.remove(pod.uid, pod.resource_version)
        if known is None and before is not pod.deletion:
            # A write or a list was faster, and did not say how it ended.
            self.observer(pod, None)
            self.note_change(pod, None)

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
        if old is not None and new is not None and (old.node, old.requests) == (new.node, new.requests):
            return  # most versions of a pod change its status only
        if old is not None:
            total = self.requests[old.node]
            total.subtract(_requests(old))
            if total["pods"] <= 0:
                del self.requests[old.node]
        if new is not None:
            self.requests.setdefault(new.node, Counter()).update(_requests(new))


class Cache:
    """All stores. `dirty` is set by each change that can affect a decision, see also `TelemetryStore.measured`.

    Args:
        decoder: Decodes the objects.
    """

    def __init__(self, decoder: Decoder | None = None) -> None:
        decoder = decoder or Decoder()
        self.dirty = asyncio.Event()
        changed = self.dirty.set
        self.tracker = ChangeTracker()
        self.workloads = WorkloadStore(decoder.bind(decode.workload), changed)
        self.agent_leases = AgentLeaseStore(decoder.bind(agent_lease))
        self.telemetry = TelemetryStore(decoder.bind(decode.telemetry), changed, self.agent_leases)
        self.nodes: NamedStore[Node] = NamedStore(decoder.bind(decode.node), changed)
        self.pods = PodStore(decoder.bind(decode_pod.pod), changed)
        self.services: SelectorStore[Service] = SelectorStore(decoder.bind(decode.service), changed)
        self.claims = ClaimStore(decoder.bind(decode_claim.resource_claim), changed)
        self.quotas = QuotaStore(decoder.bind(resource_quota), changed)
        self.other_pods = OtherPodStore(decoder.bind(decode.bound_pod), changed)
        self.demands = DemandStore(decoder.bind(decode_demand.demand), self._note_learned)
        self.kueue_workloads = KueueStore(decoder.bind(decode_kueue.kueue_workload), changed)
        self.admission_checks: TombstoneStore[AdmissionCheck] = TombstoneStore(
            decoder.bind(decode_kueue.admission_check), changed
        )
        self.node_leases = NodeLeases()
        self.heard_at: dict[str, datetime] = {}
        """By path: when the watches were last heard that the freshness of telemetry depends on."""
        self.workloads.observer = self.tracker.workload
        self.telemetry.observer = self.tracker.telemetry
        self.nodes.observer = self.tracker.node
        self.pods.observer = self.tracker.pod
        self.services.observer = self.tracker.service
        self.claims.observer = self.tracker.claim
        self.kueue_workloads.observer = self.tracker.kueue_workload
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
        outage: TelemetryOutage | None = None,
        status_budget: int = UNLIMITED,
        status_room: Mapping[str, int] | None = None,
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
            claims=self.claims.by_pod,
            with_quota=self.kueue_workloads.with_quota.keys(),
            quotas=self.quotas.items,
            nodes_with=self.telemetry.nodes_with,
            other_requests=self.other_pods.requests,
            node_leases=self.node_leases,
            other_pods=self.other_pods.items,
            templates=templates,
            previous_state=state,
            limits=limits,
            demands=self.demands.by_template,
            mix=mix,
            outage=outage,
            status_budget=status_budget,
            status_room=status_room or {},
        )

    def _note_learned(self, namespace: str) -> None:
        """Marks the workloads that are placed by learned demand as changed."""
        found = [
            workload.uid
            for workload in self.workloads.items.values()
            if workload.namespace == namespace
            and workload.model is not None
            and workload.model.spec.placement.demand is DemandSource.LEARNED
        ]
        if found:
            self.tracker.note_workloads(found)
            self.dirty.set()


def _requests(pod: BoundPod) -> dict[str, int]:
    return {**pod.requests, "pods": 1}
