"""`gpufleet convert`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import typer
import yaml

from gpufleet_cli.convert.to_workload import ConvertedWorkload, convertible
from gpufleet_cli.convert.to_workload import convert as to_workloads
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import Document, read
from gpufleet_cli.input.manifests import ClusterRules, check
from gpufleet_cli.output.terminal import write_notes
from gpufleet_operator.model.lenient_json import as_map


def in_namespace(namespace: str | None) -> Callable[[Document], list[Document]]:
    """Returns `as_workloads` for objects that get this namespace if they have none, as by `kubectl apply`."""

    def expand(document: Document) -> list[Document]:
        metadata = as_map(document.body.get("metadata"))
        if namespace is None or metadata.get("namespace"):
            return as_workloads(document)
        body = {**document.body, "metadata": {**metadata, "namespace": namespace}}
        return as_workloads(replace(document, body=body))

    return expand


def as_workloads(document: Document) -> list[Document]:
    """Returns the GPUWorkloads to which an object is converted, or the object itself."""
    converted = to_workloads(document) if convertible(document) else []
    return [_document(document, one) for one in converted] or [document]


def _document(source: Document, one: ConvertedWorkload) -> Document:
    where = f"{source.where}: {source.kind} {source.name}, converted"
    return Document(
        where, one.manifest["kind"], one.manifest["apiVersion"], one.manifest["metadata"]["name"], one.manifest
    )


def convert(files: Sequence[Path]) -> None:
    """Prints the GPUWorkloads that replace objects with GPUs, and other objects as they are; notes say what changed."""
    documents = read(files)
    found: list[tuple[object, tuple[str, ...]]] = []
    converted = 0
    for document in documents:
        workloads = to_workloads(document) if convertible(document) else []
        for one in workloads:
            made = _document(document, one)
            check(made, ClusterRules())
            found.append((one.manifest, tuple(f"{made.name}: {change}" for change in one.changes)))
        converted += len(workloads)
        if not workloads:
            found.append((document.body, (f"{document.kind} {document.name} unchanged: it requests no GPU",)))
    if not converted:
        kinds = ", ".join(f"{document.kind} {document.name}" for document in documents) or "no object"
        raise InputError(
            f"{', '.join(map(str, files))}: no Deployment, ReplicaSet, Job, JobSet or Pod with GPUs found "
            f"(skipped: {kinds})"
        )
    typer.echo(yaml.safe_dump_all([body for body, _ in found], sort_keys=False, allow_unicode=True), nl=False)
    write_notes(note for _, notes in found for note in notes)
