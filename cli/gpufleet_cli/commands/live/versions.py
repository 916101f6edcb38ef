"""`gpufleet version`."""

from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

import typer

from gpufleet_cli.cluster.kinds import OPERATORS, TELEMETRY, ObjectKind
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.lists import read_lists
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.doctor.facts import ClusterFacts, labels_of
from gpufleet_cli.errors import ClusterError
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.terminal import write_notes
from gpufleet_operator.model.lenient_json import as_map, text

_TIMEOUT_SECONDS: Final = 5
_LABEL: Final = "app.kubernetes.io/version"


def versions(target: Target, *, client_only: bool) -> None:
    """Prints the versions of the program and, if a cluster answers, of what runs there."""
    own = version("gpufleet")
    typer.echo(f"gpufleet {own}")
    if client_only:
        return
    kubectl = Kubectl(target.connection, _TIMEOUT_SECONDS)
    try:
        server = text(as_map(kubectl.get("/version")).get("gitVersion"))
        lists = read_lists(kubectl, [], [OPERATORS, TELEMETRY])
    except ClusterError as error:
        write_notes([f"versions of the cluster not read: {error}"])
        return
    facts = ClusterFacts.of(lists, own)
    operators = (text(labels_of(one).get(_LABEL)) or "unknown" for one in facts.operators)
    agents = (one.agent_version for one in facts.view.nodes.values() if one.agent_version)
    typer.echo(f"operator {_counted(lists, OPERATORS, operators, 'deployment')}")
    typer.echo(f"agents {_counted(lists, TELEMETRY, agents, 'node')}")
    typer.echo(f"kubernetes {server}")


def _counted(lists: ObjectLists, kind: ObjectKind, found: Iterable[str], noun: str) -> str:
    if kind in lists.unreadable:
        return f"not read: {lists.unreadable[kind]}"
    counts = Counter(found)
    parts = (f"{name} ({number} {noun}{'' if number == 1 else 's'})" for name, number in sorted(counts.items()))
    return ", ".join(parts) or "not installed"
