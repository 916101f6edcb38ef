"""Explains why a workload waits: the engine's counts and nearest miss, and the rejections of nodes."""

from gpufleet_api.workload_status import Explanation, IneligibleDevices, NearestMiss, NodeRejection
from gpufleet_common import timestamps
from gpufleet_operator.placement.model import Diagnosis
from gpufleet_operator.status.context import StatusContext

_MAX_REJECTIONS = 32
_MAX_MESSAGE_LENGTH = 4096
_MAX_NEAREST_MISS_LENGTH = 1024


def explanation(context: StatusContext) -> Explanation | None:
    """Returns None when there is nothing to explain: everything is placed and no node rejected a replica."""
    rejections = _node_rejections(context)
    why = context.diagnosis
    if context.assessed is None or (why is None and not rejections):
        return None
    quotes = [f"{r.by} rejected replica {r.replica} on node {r.node}: {r.message}" for r in rejections]
    sentences = [why.message] if why else []
    if quotes:
        sentences.append("; ".join(quotes))
    return Explanation(
        message=" ".join(sentences)[:_MAX_MESSAGE_LENGTH],
        devices_considered=why.considered if why else 0,
        devices_eligible=why.eligible if why else 0,
        ineligible_devices=_ineligible_devices(why),
        nearest_miss=_nearest_miss(why),
        earmark=context.earmark,
        node_rejections=rejections,
    )


def _ineligible_devices(why: Diagnosis | None) -> list[IneligibleDevices]:
    rejected = why.rejected if why else ()
    return [IneligibleDevices(reason=r.reason, devices=r.devices, nodes=r.nodes) for r in rejected]


def _nearest_miss(why: Diagnosis | None) -> NearestMiss | None:
    if why is None or why.nearest is None:
        return None
    near = why.nearest
    message = near.message[:_MAX_NEAREST_MISS_LENGTH]
    return NearestMiss(node=near.node, device=near.device, reason=near.reason, message=message)


def _node_rejections(context: StatusContext) -> list[NodeRejection]:
    """Returns the latest rejections first, as many as status may have."""
    latest = sorted(context.rejections.items(), key=lambda item: (-item[1].at.timestamp(), item[0]))
    return [
        NodeRejection(replica=replica, node=node, by=b.by, message=b.message, time=timestamps.seconds(b.at))
        for (replica, node), b in latest[:_MAX_REJECTIONS]
        if replica >= 0
    ]
