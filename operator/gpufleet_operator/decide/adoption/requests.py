"""Requests for pods that need not be alike: each owner has its own template.

The engine takes one pod for all replicas of a request. So replicas that do not belong together are placed in groups of
equal pods. The pods of a gang are placed by one pod that needs what each of them needs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gpufleet_operator.ledger.ledger import Ledger
from gpufleet_operator.model.objects import Pod
from gpufleet_operator.model.replica import Replica, WorkloadReplicas
from gpufleet_operator.placement.model import Diagnosis, PodNeeds

_MAX_REASONS = 3


def alike_replicas(assessed: WorkloadReplicas, replicas: tuple[Replica, ...]) -> Sequence[tuple[Replica, ...]]:
    """Returns the replicas in groups that one request can place; one group if the operator creates the pods."""
    if not assessed.spec.adopts or assessed.spec.placement.gang:
        return (replicas,)
    groups: list[list[Replica]] = []
    for replica in sorted(replicas, key=_precedence):
        alike = next((group for group in groups if _are_alike(group[0].pod, replica.pod)), None)
        if alike is None:
            groups.append([replica])
        else:
            alike.append(replica)
    return tuple(map(tuple, groups))


def common_pod(pods: Sequence[Pod]) -> Pod:
    """Returns the first pod, with the needs of all of them."""
    first, *others = pods
    needs = first.needs
    for other in others:
        needs = needs if other.needs == needs else _both(needs, other.needs)
    return replace(first, needs=needs)


def namesake_nodes(ledger: Ledger, replicas: Iterable[Replica]) -> dict[int, frozenset[str]]:
    """Returns, by replica, the nodes with a reservation of another pod of the same name, such as an earlier one.

    Kubelet and agent know containers by their pod's name, so two reservations under one name could be confused. The
    pods that the operator creates have unique names.
    """
    pods = {(r.pod.namespace, r.pod.name): (r.index, r.pod.uid) for r in replicas if r.pod and not r.pod.workload_uid}
    found: dict[int, set[str]] = {}
    for reservation in ledger.occupying if pods else ():
        assignment = reservation.assignment
        index, uid = pods.get((assignment.namespace, assignment.pod), (-1, assignment.pod_uid))
        if uid != assignment.pod_uid:
            found.setdefault(index, set()).add(reservation.node)
    return {index: frozenset(nodes) for index, nodes in found.items()}


def with_reasons(diagnosis: Diagnosis, reasons: Iterable[str]) -> Diagnosis:
    """Returns the diagnosis with the reasons why nodes were left out."""
    found = sorted(reasons)
    if not found:
        return diagnosis
    more = f"; {len(found) - _MAX_REASONS} more nodes" if len(found) > _MAX_REASONS else ""
    return replace(diagnosis, message=f"{diagnosis.message}; {'; '.join(found[:_MAX_REASONS])}{more}")


def _precedence(replica: Replica) -> tuple[object, ...]:
    return (-replica.pod.priority, replica.pod.created, replica.index) if replica.pod is not None else (0,)


def _are_alike(one: Pod | None, other: Pod | None) -> bool:
    if one is None or other is None:
        return one is other
    rules = (one.traits.ports, one.traits.anti_affinity, one.traits.affinity, one.traits.spread)
    return one.needs == other.needs and rules == (
        other.traits.ports,
        other.traits.anti_affinity,
        other.traits.affinity,
        other.traits.spread,
    )


def _both(one: PodNeeds, other: PodNeeds) -> PodNeeds:
    """Returns needs that a node meets only if it meets both. Of two node affinities the first is used."""
    names = {*one.extended, *other.extended}
    return replace(
        one,
        cpu_milli=max(one.cpu_milli, other.cpu_milli),
        memory_bytes=max(one.memory_bytes, other.memory_bytes),
        extended={name: max(one.extended.get(name, 0), other.extended.get(name, 0)) for name in names},
        node_selector={**other.node_selector, **one.node_selector},
        affinity_terms=other.affinity_terms if one.affinity_terms is None else one.affinity_terms,
        tolerations=tuple(t for t in one.tolerations if t in other.tolerations),
    )
