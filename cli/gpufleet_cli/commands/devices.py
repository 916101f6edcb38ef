"""`gpufleet rank` and `gpufleet explain`: check every device against one request."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gpufleet_cli.analysis import device_checks, simulation
from gpufleet_cli.analysis.device_checks import DeviceCheck
from gpufleet_cli.analysis.device_details import details
from gpufleet_cli.commands.convert import in_namespace
from gpufleet_cli.commands.sources import check_stdin, fleet_documents, namespace_of
from gpufleet_cli.errors import InputError
from gpufleet_cli.input import fleet_files, manifests
from gpufleet_cli.input.manifests import ClusterRules
from gpufleet_cli.options.target import Target
from gpufleet_cli.output import json_shapes, tables
from gpufleet_cli.output.rendering import OutputOptions, Rendering, write
from gpufleet_cli.output.terminal import Screen, write_notes
from gpufleet_operator.placement import Fleet
from gpufleet_operator.placement.model import DeviceNeeds, Request


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The request to check: a workload of these manifests, or one GPU with this much free memory."""

    files: Sequence[Path]
    workload: str | None
    min_free_memory_mib: int | None
    rules: ClusterRules
    ages: tuple[str | None, float | None] = (None, None)
    """`--now` and `--stale-after`."""


@dataclass(frozen=True, slots=True)
class _Checked:
    fleet: Fleet
    request: Request
    checks: Sequence[DeviceCheck]
    counts: json_shapes.Json
    notes: tuple[str, ...]


def rank(
    options: RequestOptions, target: Target, nodes: Sequence[str], limit: int | None, output: OutputOptions
) -> None:
    """Prints the devices that pass, best first."""
    checked = _check(options, target, nodes)
    best = device_checks.rank(checked.fleet, checked.request, checked.checks)

    def draw(screen: Screen, _wide: bool) -> None:
        tables.ranking(screen, best[:limit])
        tables.availability(screen, checked.checks)

    shape = partial(json_shapes.ranking, best[:limit], checked.counts, checked.notes)
    names = [one.check.device.uuid for one in best[:limit]]
    write(Rendering(shape, lambda: names, draw), output.format, headers=output.headers)
    write_notes(checked.notes)


def explain(
    options: RequestOptions, target: Target, nodes: Sequence[str], limit: int | None, output: OutputOptions
) -> None:
    """Prints every device with the first filter that it fails."""
    checked = _check(options, target, nodes)

    def draw(screen: Screen, _wide: bool) -> None:
        tables.explanation(screen, checked.checks[:limit])
        tables.availability(screen, checked.checks)

    shape = partial(json_shapes.explanation, checked.checks[:limit], checked.counts, checked.notes)
    names = [one.device.uuid for one in checked.checks[:limit]]
    write(Rendering(shape, lambda: names, draw), output.format, headers=output.headers)
    write_notes(checked.notes)


def _check(options: RequestOptions, target: Target, nodes: Sequence[str]) -> _Checked:
    check_stdin(options.files, target)
    notes: list[str] = []
    request = _request(options, notes, namespace_of(target) if options.files else None)
    objects = fleet_documents(target, *options.ages)
    notes[:0] = fleet_files.unchecked(objects)
    loaded = fleet_files.load(objects, request.pod.extended)
    notes += simulation.unchecked([request], loaded.nodes_known)
    checks = device_checks.check_devices(loaded.fleet, simulation.checkable(request, loaded.nodes_known), nodes)
    known = details(loaded.fleet, loaded.telemetry)
    detailed = [c if c.reason is None else _with(c, known.get((c.device.uuid, c.reason))) for c in checks]
    passing = sum(check.reason is None for check in checks)
    counts = json_shapes.counts(len(checks), passing, device_checks.count_rejections(checks))
    return _Checked(loaded.fleet, request, detailed, counts, (*notes, *loaded.notes))


def _request(options: RequestOptions, notes: list[str], namespace: str | None) -> Request:
    if not options.files:
        if options.workload is not None:
            raise InputError(f"--workload {options.workload}: requires -f FILE")
        needs = DeviceNeeds(min_free_memory_mib=options.min_free_memory_mib)
        return Request("one GPU", (0,), needs)
    if options.min_free_memory_mib is not None:
        raise InputError("--min-free-memory may not be given with -f: the manifest has the requirements")
    found = manifests.load(options.files, options.rules, in_namespace(namespace))
    notes += found.notes
    chosen = [m for m in found.workloads if options.workload in (None, m.name, m.model.metadata.name)]
    if len(chosen) != 1:
        names = ", ".join(m.name for m in found.workloads)
        if options.workload is None:
            raise InputError(f"--workload is required: the manifests have {names}")
        raise InputError(f"--workload {options.workload}: matches {len(chosen)} workloads; the manifests have {names}")
    if chosen[0].traits.restricts_domains:
        notes.append(
            f"{chosen[0].name}: host ports, pod affinity and topology spread not checked: see gpufleet simulate"
        )
    return chosen[0].request


def _with(check: DeviceCheck, detail: str | None) -> DeviceCheck:
    return replace(check, message=detail) if detail else check
