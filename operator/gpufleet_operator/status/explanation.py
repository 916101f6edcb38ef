"""Why a workload waits: the engine's counts and nearest miss, and what kube-scheduler and kubelets said."""

from gpufleet_api.workload import Explanation, NearestMiss, NodeRefusal, RejectionSummary
from gpufleet_common import timestamps
from gpufleet_operator.model.snapshot import Snapshot
from gpufleet_operator.placement.model import Diagnosis
from gpufleet_operator.status.context import StatusContext

_REFUSALS = 32
_MESSAGE = 4096


def explanation(snapshot: Snapshot, outlook: StatusContext) -> Explanation | None:
    """None when there is nothing to explain: all is placed, and no refusal stands."""
    refusals = _refusals(snapshot, outlook)
    why = outlook.diagnosis
    if outlook.standing is None or (why is None and not refusals):
        return None
    quotes = [f"{r.by} refused {r.node} for replica {r.replica}: {r.message}" for r in refusals]
    message = " ".join([why.message, *quotes] if why else quotes)
    return Explanation(
        message=message[:_MESSAGE],
        devices_considered=why.considered if why else 0,
        devices_eligible=why.eligible if why else 0,
        rejections=[RejectionSummary(reason=r.reason, devices=r.devices, nodes=r.nodes) for r in why.rejected]
        if why
        else [],
        nearest_miss=_nearest(why),
        refusals=refusals,
    )


def _nearest(why: Diagnosis | None) -> NearestMiss | None:
    if why is None or why.nearest is None:
        return None
    near = why.nearest
    return NearestMiss(node=near.node, device=near.device, reason=near.reason, message=near.message[:1024])


def _refusals(snapshot: Snapshot, outlook: StatusContext) -> list[NodeRefusal]:
    """The latest first, as many as status has room for."""
    mine = [(key, s) for key, s in snapshot.memory.refusals.items() if key[0] == outlook.workload.uid]
    mine.sort(key=lambda item: (-item[1].at.timestamp(), item[0]))
    return [
        NodeRefusal(replica=replica, node=node, by=s.by, message=s.message, time=timestamps.seconds(s.at))
        for (_, replica, node), s in mine[:_REFUSALS]
        if replica >= 0
    ]
