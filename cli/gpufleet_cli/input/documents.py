"""Reads files with Kubernetes objects as documents, which know their position for messages.

A file is YAML with one or several documents, or JSON, as kubectl prints and reads them. A List counts as its items.
Like the apiserver and unlike a plain YAML parser, it rejects duplicate keys and reads dates as strings.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.yaml_loader import StrictLoader
from gpufleet_common.field_errors import invalid, required, show

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Document:
    """One Kubernetes object. `where` is its file, and its position there if the file has several."""

    where: str
    kind: str
    api_version: str
    name: str
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.where}: {self.kind} {self.name}"


def read(paths: Sequence[Path]) -> list[Document]:
    """Returns every object of these files, in order. `-` is stdin.

    Raises:
        InputError: A file cannot be read or parsed, or contains something that is not a Kubernetes object.
    """
    return [document for path in paths for document in _documents(path)]


def _documents(path: Path) -> Iterator[Document]:
    name = "stdin" if path == STDIN else str(path)
    found = [body for body in _parse(name, _text(path, name)) if body is not None]
    for number, body in enumerate(found, start=1):
        where = f"{name}, document {number}" if len(found) > 1 else name
        yield from _objects(where, body)


def _objects(where: str, body: Any) -> Iterator[Document]:
    kind = _field(where, body, "kind")
    api_version = _field(where, body, "apiVersion")
    if not kind.endswith("List") or "items" not in body:
        yield Document(where, kind, api_version, _name(where, kind, body), body)
        return
    items = body["items"]
    if items is not None and not isinstance(items, list):
        raise InputError(f"{where}: {kind}: {_wrong('items', items, 'a list')}")
    for number, item in enumerate(items or (), start=1):
        yield from _objects(f"{where}, item {number}", item)


def _field(where: str, body: Any, field: str) -> str:
    if not isinstance(body, dict):
        raise InputError(f"{where}: must be a Kubernetes object, not {show(body)}")
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {_wrong(field, value, 'a string')}")
    return value


def _name(where: str, kind: str, body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: {kind}: {_wrong('metadata.name', name, 'a string')}")
    return name


def _wrong(path: str, value: Any, wanted: str) -> str:
    return required(path) if value is None else invalid(path, value, f"must be {wanted}")


def _text(path: Path, name: str) -> str:
    try:
        return sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 (byte {error.start})") from error


def _parse(name: str, text: str) -> list[Any]:
    try:
        if text.lstrip().startswith("{"):
            try:
                return [json.loads(text, object_pairs_hook=lambda pairs: _unique(name, pairs))]
            except json.JSONDecodeError:
                pass  # YAML can begin with a brace as well
        found = list(yaml.load_all(text, Loader=StrictLoader))
        json.dumps(found)  # rejects what JSON cannot express: binary data, sets, an alias to itself
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line = f", line {at.line + 1}" if at else ""
        raise InputError(f"{name}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error
    except RecursionError:
        raise InputError(f"{name}: nested too deeply") from None
    return found


def _unique(name: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f'{name}: duplicate key "{key}"')
        found[key] = value
    return found
