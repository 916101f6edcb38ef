"""`gpufleet snapshot save` and `show`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Final

import typer

from gpufleet_cli.cluster import kinds
from gpufleet_cli.cluster.kinds import ObjectKind
from gpufleet_cli.cluster.kubectl import Kubectl
from gpufleet_cli.cluster.lists import read_lists
from gpufleet_cli.doctor.facts import ClusterFacts, name_of, namespace_of
from gpufleet_cli.errors import ClusterError, InputError
from gpufleet_cli.input.saved_objects import saved_lists
from gpufleet_cli.options.target import Target
from gpufleet_cli.output.live import gpu_tables
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_cli.view.fleet_view import fleet_view
from gpufleet_cli.view.redact import redacted
from gpufleet_operator.model.lenient_json import Json, as_map, text

ABOUT: Final = "about.txt"
_OTHERS: Final = (
    kinds.WORKLOADS, kinds.DEMANDS, kinds.PODS, kinds.EVENTS, kinds.NAMESPACES, kinds.AGENTS, kinds.OPERATORS,
    kinds.POLICIES, kinds.BINDINGS, kinds.CRDS, kinds.RUNTIME_CLASSES, kinds.SLICES, kinds.LEASES,
    kinds.AGENT_LEASES,
)  # fmt: skip
_CONFIGURED: Final = frozenset({kinds.AGENTS, kinds.OPERATORS})
_LOG_LINES: Final = 2000
_MAX_LOGS: Final = 40
"""Pods whose logs are saved: the operator, and agents, those that are not Ready first."""


def save(target: Target, folder: Path, *, with_logs: bool) -> None:
    """Writes the objects that gpufleet works with, and logs of its pods, to a new folder.

    Raises:
        InputError: The folder is not empty, or GPUTelemetries or Nodes cannot be read.
    """
    _make(folder)
    kubectl = Kubectl(target.connection)
    lists = read_lists(kubectl, [kinds.TELEMETRY, kinds.NODES], _OTHERS)
    facts = ClusterFacts.of(lists, version("gpufleet"))
    saved: dict[str, list[Json]] = {}
    for kind in lists.items:
        saved.setdefault(kind.plural, []).extend(_chosen(kind, facts))
    for plural, objects in saved.items():
        _write(folder / f"{plural}.json", objects)
    names = _logs(kubectl, facts, folder) if with_logs else []
    _about(folder, kubectl, facts, names)
    counts = ", ".join(f"{len(objects):,} {plural}" for plural, objects in saved.items())
    typer.echo(f"saved to {folder}: {counts}, logs of {len(names)} pods")
    write_notes(dict.fromkeys(f"{kind.plural} not saved: {why}" for kind, why in lists.unreadable.items()))
    write_notes(
        ["values of environment variables, commands and foreign annotations are left out; Secrets are not read"]
    )


def show(folder: Path) -> None:
    """Prints what a snapshot has: versions, GPUs, workloads by state."""
    about = folder / ABOUT
    if not about.is_file():
        raise InputError(f"{folder}: not a folder of gpufleet snapshot save: {ABOUT} is missing")
    screen = Screen.of()
    typer.echo(about.read_text(encoding="utf-8").rstrip())
    lists = saved_lists([folder], [], [kinds.TELEMETRY, kinds.WORKLOADS, kinds.PODS, kinds.NODES])
    view = fleet_view(lists.of(kinds.TELEMETRY), lists.of(kinds.WORKLOADS), lists.of(kinds.PODS))
    screen.line(gpu_tables.totals(list(view.gpus)))
    states = Counter(one.state for one in view.workloads.values())
    listed = ", ".join(f"{number:,} {state}" for state, number in states.most_common())
    screen.line(f"{len(view.workloads):,} GPUWorkloads{f': {listed}' if listed else ''}")
    for one in view.workloads.values():
        verdict = one.verdict
        if verdict is not None and verdict.type == "Ready" and verdict.status != "True":
            screen.line(f"{one.full_name}: {verdict.reason}: {verdict.message}")
    write_notes([f"other commands read it with --from {folder}: top, status, explain, who, doctor, simulate"])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder}: must be a new or empty folder")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from error


def _write(path: Path, items: list[Json]) -> None:
    # One object per line: a diff of two snapshots is readable.
    lines = ",\n".join(json.dumps(item, ensure_ascii=False, sort_keys=True) for item in items)
    path.write_text(f'{{"apiVersion": "v1", "kind": "List", "items": [\n{lines}\n]}}\n', encoding="utf-8")


def _chosen(kind: ObjectKind, facts: ClusterFacts) -> Iterator[Json]:
    """Yields the objects of a kind that concern gpufleet, redacted."""
    for body in facts.lists.of(kind):
        if _concerns(kind, body):
            yield redacted(body, keep_arguments=kind in _CONFIGURED)


def _concerns(kind: ObjectKind, body: Json) -> bool:
    if kind is kinds.CRDS:
        return name_of(body).endswith(".gpufleet.dev")
    if kind in (kinds.POLICIES, kinds.BINDINGS):
        return "gpufleet" in json.dumps(body)
    if kind is kinds.EVENTS:
        about = as_map(body.get("involvedObject"))
        return about.get("kind") in ("GPUWorkload", "GPUTelemetry", "Node", "Pod", "DaemonSet")
    return True


def _logs(kubectl: Kubectl, facts: ClusterFacts, folder: Path) -> list[str]:
    pods = [pod for owner in facts.operators for pod in facts.pods_of(owner)]
    agents = [pod for owner in facts.agents for pod in facts.pods_of(owner)]
    pods += sorted(agents, key=_is_ready)
    with ThreadPoolExecutor(4) as pool:
        return list(filter(None, pool.map(lambda pod: _log(kubectl, pod, folder), pods[:_MAX_LOGS])))


def _is_ready(pod: Json) -> bool:
    conditions = as_map(pod.get("status")).get("conditions") or ()
    return any(as_map(one).get("type") == "Ready" and as_map(one).get("status") == "True" for one in conditions)


def _log(kubectl: Kubectl, pod: Json, folder: Path) -> str:
    name, namespace = name_of(pod), namespace_of(pod)
    try:
        found = kubectl.run("logs", f"--namespace={namespace}", name, f"--tail={_LOG_LINES}", "--all-containers")
    except ClusterError as error:
        found = f"not read: {error}\n"
    (folder / f"{name}.log").write_text(found, encoding="utf-8")
    return name


def _about(folder: Path, kubectl: Kubectl, facts: ClusterFacts, logs: Iterable[str]) -> None:
    try:
        server = text(as_map(kubectl.get("/version")).get("gitVersion"))
    except ClusterError as error:
        server = f"not read: {error}"
    agents = Counter(one.agent_version or "unknown" for one in facts.view.nodes.values())
    lines = [
        f"taken: {facts.now:%Y-%m-%dT%H:%M:%SZ}" if facts.now else "taken: unknown",
        f"gpufleet: {facts.version}",
        f"kubernetes: {server}",
        *(f"agents: {number} with {name}" for name, number in sorted(agents.items())),
        *dict.fromkeys(f"not read: {kind.plural}: {why}" for kind, why in facts.lists.unreadable.items()),
        *(f"log: {name}.log" for name in logs),
    ]
    (folder / ABOUT).write_text("\n".join(lines) + "\n", encoding="utf-8")
