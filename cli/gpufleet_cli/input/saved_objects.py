"""`--from`: objects of files, folders and stdin as the lists that a cluster returns."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gpufleet_cli.cluster.kinds import ObjectKind
from gpufleet_cli.cluster.object_lists import ObjectLists
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import STDIN, Document, read
from gpufleet_operator.model.lenient_json import Json, as_map

_ENDINGS = (".json", ".yaml", ".yml")


def documents(paths: Sequence[Path]) -> list[Document]:
    """Returns the objects of these files, and of the files in and below these folders. Raises InputError.

    As for `kubectl apply --recursive`, other files are ignored; so are hidden ones and those of hidden folders.
    """
    return read([file for path in paths for file in _files(path)])


def saved_lists(
    paths: Sequence[Path],
    required: Iterable[ObjectKind],
    optional: Iterable[ObjectKind] = (),
    namespace: str | None = None,
) -> ObjectLists:
    """Returns the lists of some kinds.

    Args:
        paths: Files, folders, or `-` for stdin.
        required: Kinds of which there must be an object.
        optional: Kinds that may be missing.
        namespace: Limits kinds with a namespace to this one; None for all.

    Raises:
        InputError: A file cannot be used, or an object of a required kind is missing.
    """
    needed = tuple(required)
    found: dict[ObjectKind, list[Json]] = {kind: [] for kind in (*needed, *optional)}
    for document in documents(paths):
        for kind, items in found.items():
            if (document.api_version, document.kind) == (kind.api_version, kind.kind) and (
                namespace is None or not kind.namespaced or _namespace(document) == namespace
            ):
                items.append(document.body)
    for kind in needed:
        if not found[kind]:
            where = "" if namespace is None or not kind.namespaced else f" in namespace {namespace}"
            raise InputError(f"{', '.join(map(str, paths))}: no {kind.kind} found{where}")
    missing = {kind: f"no {kind.kind} in the saved objects" for kind, items in found.items() if not items}
    return ObjectLists({kind: tuple(items) for kind, items in found.items()}, unreadable=missing)


def _files(path: Path) -> Iterable[Path]:
    if path == STDIN or not path.is_dir():
        return [path]
    names = ((file.relative_to(path), file) for file in path.rglob("*") if file.suffix in _ENDINGS and file.is_file())
    found = sorted(file for name, file in names if not any(part.startswith(".") for part in name.parts))
    if not found:
        raise InputError(f"{path}: the folder has no file that ends in {', '.join(_ENDINGS)}")
    return found


def _namespace(document: Document) -> str:
    return str(as_map(document.body.get("metadata")).get("namespace") or "default")
