"""`-f`: manifests -> GPUWorkloads, judged as the apiserver and then the operator would judge them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet_api.names import API_VERSION, GROUP, WORKLOAD_KIND
from gpufleet_api.workload import GPUWorkload
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.cel_rules import broken
from gpufleet_cli.input.decode import parse, refuse
from gpufleet_cli.input.documents import Document, read
from gpufleet_cli.input.schema_checks import workload_problems
from gpufleet_operator.fleet.engine_input import request
from gpufleet_operator.model.extended_resources import Resources
from gpufleet_operator.placement.model import Request
from gpufleet_operator.pods.validate import problems

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One workload: the user's object, where it stands, and the engine's question."""

    document: Document
    model: GPUWorkload
    request: Request

    @property
    def name(self) -> str:
        """namespace/name."""
        return self.request.name


@dataclass(frozen=True, slots=True)
class Manifests:
    """All workloads of the files, in order, and what to tell the user."""

    workloads: tuple[Manifest, ...]
    notes: tuple[str, ...] = ()


def load(paths: Sequence[Path], resource: str) -> Manifests:
    """Read the workloads of these files. Objects of other kinds are named in a note.

    Args:
        paths: files; `-` is stdin.
        resource: the extended resource that stands for whole devices.

    Raises:
        InputError: a file or a workload can't be used, a workload stands twice, or there is none.
    """
    workloads: dict[str, Manifest] = {}
    notes = []
    for document in read(paths):
        if document.kind != WORKLOAD_KIND or document.api_version.partition("/")[0] != GROUP:
            notes.append(f"{document} ({document.api_version}) is no {WORKLOAD_KIND} of {GROUP}: skipped")
            continue
        manifest = _manifest(document, Resources(resource))
        if manifest.name in workloads:
            first = workloads[manifest.name].document.where
            raise InputError(f"{document}: metadata.name: {manifest.name} stands twice, also in {first}")
        workloads[manifest.name] = manifest
        notes += _notes(manifest)
    if not workloads:
        raise InputError(f"{', '.join(map(str, paths))}: there is no {WORKLOAD_KIND}")
    return Manifests(tuple(workloads.values()), tuple(notes))


def _manifest(document: Document, resources: Resources) -> Manifest:
    if document.api_version != API_VERSION:
        raise InputError(f"{document}: apiVersion: must be {API_VERSION} (got {document.api_version})")
    refuse(document, workload_problems(document.body))
    model = parse(GPUWorkload, document)
    refuse(document, _name_problems(model))
    refuse(document, broken(model))
    refuse(document, map(str, problems(model.spec, resources)))
    return Manifest(document, model, request(model, resources=resources))


def _name_problems(model: GPUWorkload) -> Iterator[str]:
    name = model.metadata.name
    if not _SUBDOMAIN.fullmatch(name):
        yield f'metadata.name: must be lower case letters, digits, "-" and "." (got "{name}")'


def _notes(manifest: Manifest) -> Iterator[str]:
    if manifest.model.spec.suspend:
        yield f"{manifest.name} has spec.suspend: true; shown as if it were false"
