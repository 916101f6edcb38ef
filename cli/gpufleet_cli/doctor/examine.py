"""All checks, and which lists each of them needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from gpufleet_cli.cluster import kinds
from gpufleet_cli.cluster.kinds import ObjectKind
from gpufleet_cli.doctor import installation, leader, nodes, pods, reads
from gpufleet_cli.doctor.facts import ClusterFacts
from gpufleet_cli.doctor.finding import Diagnosed


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """A check. `needs` are the lists without which it says nothing."""

    title: str
    run: Callable[[ClusterFacts], Iterable[Diagnosed]]
    needs: tuple[ObjectKind, ...] = ()


@dataclass(frozen=True, slots=True)
class Examination:
    """Findings, and the checks that passed or could not run."""

    found: tuple[Diagnosed, ...]
    passed: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    """Title of a check, and why it could not run."""
    leaders: tuple[str, ...] = ()
    """Leading pods of operators that elect a leader."""


CHECKS: Final = (
    CheckSpec("CustomResourceDefinitions", installation.crds, (kinds.CRDS,)),
    CheckSpec("operator", installation.operator, (kinds.OPERATORS, kinds.PODS)),
    CheckSpec("leader of the operators", leader.leader, (kinds.OPERATORS, kinds.LEASES)),
    CheckSpec("passes of the operator", installation.passes, (kinds.OPERATORS, kinds.WORKLOADS)),
    CheckSpec("reads of the operator", reads.denied_reads, (kinds.OPERATORS, kinds.PODS, kinds.DENIED_READS)),
    CheckSpec("admission policies", installation.policies, (kinds.POLICIES, kinds.BINDINGS, kinds.AGENTS)),
    CheckSpec("Pod Security", installation.pod_security, (kinds.NAMESPACES, kinds.AGENTS)),
    CheckSpec("runtime handlers", installation.runtime_class, (kinds.RUNTIME_CLASSES, kinds.AGENTS, kinds.NODES)),
    CheckSpec("versions", installation.versions, (kinds.OPERATORS, kinds.TELEMETRY)),
    CheckSpec("agents", nodes.agents, (kinds.AGENTS, kinds.PODS, kinds.TELEMETRY, kinds.NODES)),
    CheckSpec("telemetry", nodes.telemetry, (kinds.TELEMETRY, kinds.NODES)),
    CheckSpec("driver", nodes.driver, (kinds.TELEMETRY, kinds.AGENTS, kinds.NODES)),
    CheckSpec("device plugin", nodes.plugins, (kinds.TELEMETRY, kinds.AGENTS, kinds.NODES)),
    CheckSpec("other device plugins", nodes.second_plugins, (kinds.TELEMETRY, kinds.NODES)),
    CheckSpec("taints", nodes.taints, (kinds.AGENTS, kinds.OPERATORS, kinds.WORKLOADS, kinds.NODES)),
    CheckSpec("clocks", nodes.clocks, (kinds.TELEMETRY,)),
    CheckSpec("gated pods", pods.gated_pods, (kinds.PODS, kinds.WORKLOADS)),
    CheckSpec("reservations", pods.reservations, (kinds.PODS, kinds.TELEMETRY)),
)


def examine(facts: ClusterFacts) -> Examination:
    """Runs all checks whose lists could be read."""
    found: list[Diagnosed] = []
    passed, skipped = [], []
    for check in CHECKS:
        missing = [kind for kind in check.needs if not facts.known(kind)]
        if missing:
            skipped.append((check.title, facts.lists.unreadable[missing[0]]))
            continue
        problems = list(check.run(facts))
        found += problems
        if not problems:
            passed.append(check.title)
    return Examination(tuple(found), tuple(passed), tuple(skipped), tuple(leader.leaders(facts)))
