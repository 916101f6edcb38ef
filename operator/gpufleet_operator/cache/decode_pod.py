"""Decodes pods of workloads.

Only `metadata` must be valid; malformed fields elsewhere are ignored. A pod that is not decoded looks missing to the
operator, which would then create another one, again and again.
"""

import json
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta

from gpufleet_api.names import (
    ASSIGNMENT_ANNOTATION,
    ATTEMPT_LABEL,
    REPLACED_ANNOTATION,
    REPLICA_LABEL,
    TEMPLATE_HASH_LABEL,
    WAITING_FOR_ANNOTATION,
    WORKLOAD_LABEL,
)
from gpufleet_common import timestamps
from gpufleet_operator.cache import decode_owner
from gpufleet_operator.cache.decode_claim import claim_reference
from gpufleet_operator.cache.decode_container import container, moment
from gpufleet_operator.model.demands.template import container_images
from gpufleet_operator.model.lenient_json import Json, as_list, as_map, index, maps, number, text
from gpufleet_operator.model.objects import (
    DEFAULT_SCHEDULER,
    DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS,
    MAX_GRACE_PERIOD_SECONDS,
    AffinityShape,
    Pod,
    PodPhase,
    TermShape,
)
from gpufleet_operator.pods import requests, traits
from gpufleet_operator.pods.node_affinity import node_selector_terms


def pod(body: Json) -> Pod:
    """Decodes a v1.Pod. Its requests are those after admission (LimitRanges, default tolerations).

    Raises:
        KeyError: `metadata` has no identity or creation time.
        ValueError: The creation time is malformed.
    """
    meta, spec, status = body["metadata"], as_map(body.get("spec")), as_map(body.get("status"))
    labels, ready = as_map(meta.get("labels")), _condition(status, "Ready")
    annotations, references = as_map(meta.get("annotations")), list(maps(meta.get("ownerReferences")))
    owner, claim = decode_owner.owner(references), claim_reference(spec)
    assigned = _assigned_node(text(annotations.get(ASSIGNMENT_ANNOTATION))) if claim and claim.template else None
    return Pod(
        uid=sys.intern(meta["uid"]),
        namespace=sys.intern(meta["namespace"]),
        name=sys.intern(meta["name"]),
        resource_version=meta.get("resourceVersion", ""),
        created=timestamps.parse(meta["creationTimestamp"]),
        workload_uid=decode_owner.workload_uid(references),
        replica=index(labels.get(REPLICA_LABEL)),
        workload_label=text(labels.get(WORKLOAD_LABEL)),
        owner=owner,
        rank=decode_owner.rank(labels, annotations),
        run=decode_owner.run(labels, owner),
        finalizers=tuple(map(text, as_list(meta.get("finalizers")))),
        assigned=ASSIGNMENT_ANNOTATION in annotations,
        replaced=text(annotations.get(REPLACED_ANNOTATION)),
        device_requests=decode_owner.device_requests(spec),
        images=container_images(spec),
        attempt=index(labels.get(ATTEMPT_LABEL)) or 0,
        deleting="deletionTimestamp" in meta,
        deletion_requested=_deletion_requested(meta),
        gates=tuple(text(g.get("name")) for g in maps(spec.get("schedulingGates"))),
        node=text(spec.get("nodeName")) or None,
        pinned=assigned or _pinned(spec),
        phase=_phase(text(status.get("phase"))),
        reason=text(status.get("reason")),
        message=text(status.get("message")),
        disrupted=_condition(status, "DisruptionTarget").get("status") == "True",
        unschedulable=_unschedulable(status),
        nominated=bool(status.get("nominatedNodeName")),
        scheduler=text(spec.get("schedulerName")) or DEFAULT_SCHEDULER,
        claims=tuple(_claims(maps(spec.get("resourceClaims")))),
        device_claim=claim,
        volume_claims=tuple(_volume_claims(meta["name"], maps(spec.get("volumes")))),
        ready=ready.get("status") == "True",
        template_hash=text(labels.get(TEMPLATE_HASH_LABEL)),
        not_ready="" if ready.get("status") == "True" else text(ready.get("message")),
        containers=tuple(container(c) for c in maps(status.get("containerStatuses"))),
        init_containers=tuple(container(c) for c in maps(status.get("initContainerStatuses"))),
        priority=number(spec.get("priority")),
        preempts=spec.get("preemptionPolicy") != "Never",
        needs=requests.pod_needs(spec),
        traits=traits.pod_traits(meta["namespace"], meta.get("labels"), spec),
        affinity=_affinity_shape(spec),
        has_annotations="annotations" in meta,
        waiting_for=text(annotations.get(WAITING_FOR_ANNOTATION)),
        termination_grace_period_seconds=_grace_period_seconds(spec),
    )


def _deletion_requested(meta: Json) -> datetime | None:
    """Returns when the deletion was requested: `deletionTimestamp` is that plus the grace period."""
    ends = moment(meta.get("deletionTimestamp"))
    if ends is None:
        return None
    try:
        return ends - timedelta(seconds=number(meta.get("deletionGracePeriodSeconds")))
    except OverflowError:
        return None


def _grace_period_seconds(spec: Json) -> int:
    """Returns the grace period; at most what a reservation can record, which is 68 years."""
    seconds = spec.get("terminationGracePeriodSeconds")
    if not isinstance(seconds, int) or seconds < 0:
        return DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS
    return min(seconds, MAX_GRACE_PERIOD_SECONDS)


def _phase(name: str) -> PodPhase:
    if not name:
        return PodPhase.PENDING
    return PodPhase(name) if name in tuple(PodPhase) else PodPhase.UNKNOWN


def _condition(status: Json, kind: str) -> Json:
    return next((c for c in maps(status.get("conditions")) if c.get("type") == kind), {})


def _unschedulable(status: Json) -> str | None:
    condition = _condition(status, "PodScheduled")
    reason = text(condition.get("reason"))
    if condition.get("status") == "False" and reason in ("Unschedulable", "SchedulerError"):
        return str(condition.get("message") or reason)
    return None


def _claims(references: Iterable[Json]) -> Iterable[str]:
    for one in references:
        if name := text(one.get("resourceClaimName")):
            yield f'ResourceClaim "{name}"'
        elif name := text(one.get("resourceClaimTemplateName")):
            yield f'ResourceClaimTemplate "{name}"'


def _volume_claims(pod: str, volumes: Iterable[Json]) -> Iterable[str]:
    """Yields the claims that volumes name, and those that are created for ephemeral volumes of the pod."""
    for volume in volumes:
        if name := text(as_map(volume.get("persistentVolumeClaim")).get("claimName")):
            yield name
        elif "ephemeral" in volume:
            yield f"{pod}-{text(volume.get('name'))}"


def _affinity_shape(spec: Json) -> AffinityShape:
    terms = node_selector_terms(spec)
    affinity = spec.get("affinity")
    return AffinityShape(
        affinity=affinity is not None,
        node_affinity=as_map(affinity).get("nodeAffinity") is not None,
        terms=None
        if terms is None
        else tuple(
            TermShape(
                empty=not (t.get("matchExpressions") or t.get("matchFields")), has_fields=bool(t.get("matchFields"))
            )
            for t in terms
        ),
    )


def _assigned_node(annotation: str) -> str | None:
    """Returns the node of the operator's annotation; None: there is none."""
    try:
        return text(as_map(json.loads(annotation)).get("node")) or None if annotation else None
    except (RecursionError, ValueError):  # with admission policies, only the operator can write it
        return None


def _pinned(spec: Json) -> str | None:
    """Returns the node that the operator pinned the pod to: the last match field of any term that is not empty."""
    for term in node_selector_terms(spec) or ():
        for field in reversed(list(maps(term.get("matchFields")))):
            if field.get("key") == "metadata.name" and field.get("operator") == "In":
                return text(next(iter(as_list(field.get("values"))), "")) or None
    return None
