"""A v1.Pod as JSON -> the view that decisions are made on."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpufleet_api.names import API_VERSION, REPLICA_LABEL, WORKLOAD_KIND
from gpufleet_operator import podspec, times
from gpufleet_operator.views import AffinityShape, Container, Pod, PodPhase, TermShape

Json = Mapping[str, Any]


def pod(body: Json) -> Pod:
    """Project a pod. The requests are those after admission (LimitRanges, defaulted tolerations)."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    replica = (meta.get("labels") or {}).get(REPLICA_LABEL, "")
    shape = _affinity_shape(spec)
    return Pod(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        resource_version=meta.get("resourceVersion", ""),
        created=times.parse(meta["creationTimestamp"]),
        workload_uid=_owner(meta.get("ownerReferences") or ()),
        replica=int(replica) if replica.isascii() and replica.isdigit() else None,
        deleting="deletionTimestamp" in meta,
        gates=tuple(g["name"] for g in spec.get("schedulingGates") or ()),
        node=spec.get("nodeName") or None,
        pinned=_pinned(spec),
        phase=PodPhase(status.get("phase") or "Pending"),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        disrupted=_condition(status, "DisruptionTarget").get("status") == "True",
        unschedulable=_unschedulable(status),
        nominated=bool(status.get("nominatedNodeName")),
        containers=tuple(_container(c) for c in status.get("containerStatuses") or ()),
        priority=spec.get("priority") or 0,
        needs=podspec.pod_needs(spec),
        affinity=shape,
        annotated="annotations" in meta,
    )


def _owner(references: Iterable[Json]) -> str:
    for ref in references:
        if ref.get("controller") and ref.get("kind") == WORKLOAD_KIND and ref.get("apiVersion") == API_VERSION:
            return str(ref["uid"])
    return ""


def _condition(status: Json, kind: str) -> Json:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _unschedulable(status: Json) -> str | None:
    condition = _condition(status, "PodScheduled")
    if condition.get("status") == "False" and condition.get("reason") == "Unschedulable":
        return str(condition.get("message") or "Unschedulable")
    return None


def _container(status: Json) -> Container:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    running, ended = state.get("running"), state.get("terminated")
    started = (running or ended or {}).get("startedAt")
    return Container(
        name=status["name"],
        running=running is not None,
        # A container that the runtime never made has no id; `terminated` alone is also written for those.
        ran=running is not None or bool(_ran(ended) or _ran(last.get("terminated"))),
        started_at=times.parse(started) if started else None,
        devices={
            entry["name"]: frozenset(r["resourceID"] for r in entry.get("resources") or ())
            for entry in status.get("allocatedResourcesStatus") or ()
        },
    )


def _ran(terminated: Json | None) -> bool:
    return bool(terminated and terminated.get("containerID"))


def _required_terms(spec: Json) -> list[Json] | None:
    node_affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else list(required.get("nodeSelectorTerms") or ())


def _affinity_shape(spec: Json) -> AffinityShape:
    terms = _required_terms(spec)
    affinity = spec.get("affinity")
    return AffinityShape(
        affinity=affinity is not None,
        node_affinity=(affinity or {}).get("nodeAffinity") is not None,
        terms=None
        if terms is None
        else tuple(
            TermShape(
                empty=not (t.get("matchExpressions") or t.get("matchFields")), has_fields=bool(t.get("matchFields"))
            )
            for t in terms
        ),
    )


def _pinned(spec: Json) -> str | None:
    """Our pin is appended, so it is the last match field of a term that isn't empty."""
    for term in _required_terms(spec) or ():
        for field in reversed(term.get("matchFields") or ()):
            if field.get("key") == "metadata.name" and field.get("operator") == "In":
                return str(next(iter(field.get("values") or ()), "")) or None
    return None
