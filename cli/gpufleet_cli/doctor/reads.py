"""Checks whether the apiserver denies reads to the operator."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from gpufleet_api.names import READS_DENIED
from gpufleet_cli.cluster.kinds import DENIED_READS
from gpufleet_cli.doctor.facts import ClusterFacts, name_of, namespace_of, pod_spec
from gpufleet_cli.doctor.finding import Diagnosed
from gpufleet_cli.view.event_view import events_of
from gpufleet_operator.model.lenient_json import text

_CURRENT_SECONDS: Final = 300
"""The operator repeats a denied read within two minutes, and counts its event up."""


def denied_reads(facts: ClusterFacts) -> Iterator[Diagnosed]:
    """Yields reads that are denied to an operator that goes on without them. Other ones end it."""
    for one in facts.operators:
        for pod in map(name_of, facts.pods_of(one)):
            for event in events_of(facts.lists.of(DENIED_READS), [("Pod", pod)]):
                if event.reason != READS_DENIED or _is_old(facts, event.at):
                    continue
                account = f"system:serviceaccount:{namespace_of(one)}:{text(pod_spec(one).get('serviceAccountName'))}"
                cure = (
                    "upgrade the release, which creates roles and bindings again; with rbac.create=false, add the rule "
                    f"to your role; what it may do: kubectl auth can-i --list --as={account}"
                )
                yield Diagnosed("ReadsDenied", f"pod/{namespace_of(one)}/{pod}", event.message, cure)


def _is_old(facts: ClusterFacts, at: datetime | None) -> bool:
    if facts.now is None or at is None:
        return False
    server_now = facts.now - timedelta(seconds=facts.own_skew_seconds or 0.0)
    return server_now - at > timedelta(seconds=_CURRENT_SECONDS)
