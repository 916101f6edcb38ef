"""Checks which replica of the operator leads, by its Lease."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from gpufleet_api.names import OPERATOR_LEASE
from gpufleet_cli.cluster.kinds import LEASES
from gpufleet_cli.doctor.facts import ClusterFacts, flag, name_of, namespace_of
from gpufleet_cli.doctor.finding import Diagnosed
from gpufleet_cli.freshness import time_of
from gpufleet_operator.model.lenient_json import Json, as_map, number, text

_TAKEOVER_SECONDS: Final = 15
"""A standby leads at most this long after the last renewal. Twice as long is tolerated, for a busy apiserver."""


def leader(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Yields operators of which no replica decides, although one is ready."""
    for one in facts.operators:
        ready = number(as_map(one.get("status")).get("readyReplicas"))
        if not ready or not _elects(one) or _leads(facts, one):
            continue
        spec = _lease(facts, one)
        holder, renewed = text(spec.get("holderIdentity")), text(spec.get("renewTime"))
        cause = f"the last leader {_pod(holder)} renewed it at {renewed}" if holder else "it has no holder"
        where = f"--namespace={namespace_of(one)} deployment/{name_of(one)}"
        cure = f"kubectl logs {where}: it reports why writes of the Lease fail, such as a webhook or a permission"
        about = f"lease/{namespace_of(one)}/{OPERATOR_LEASE}"
        yield Diagnosed("NoLeader", about, f"none of the replicas decides: {cause}, and no standby took over", cure)


def leaders(facts: ClusterFacts) -> list[str]:
    """Returns the pods that lead, of operators that elect a leader."""
    return [name for one in facts.operators if _elects(one) and (name := _leads(facts, one))]


def _leads(facts: ClusterFacts, operator: Json) -> str:
    """Returns the pod that leads; empty: none."""
    spec = _lease(facts, operator)
    holder, renewed = text(spec.get("holderIdentity")), time_of(spec.get("renewTime"))
    if not holder or renewed is None:
        return ""
    if facts.now is not None:
        server_now = facts.now - timedelta(seconds=facts.own_skew_seconds or 0.0)
        if server_now - renewed > timedelta(seconds=2 * _TAKEOVER_SECONDS):
            return ""
    return _pod(holder)


def _lease(facts: ClusterFacts, operator: Json) -> Json:
    for one in facts.lists.of(LEASES):
        if (namespace_of(one), name_of(one)) == (namespace_of(operator), OPERATOR_LEASE):
            return as_map(one.get("spec"))
    return {}


def _elects(operator: Json) -> bool:
    return flag(operator, "--leader-election") == "true"


def _pod(identity: str) -> str:
    """Returns the pod of an identity, which ends in a random part for each process."""
    return identity.rpartition("_")[0] or identity
