"""Files with Kubernetes objects -> documents that know where they stand, so that every message can say it.

YAML with one or several documents, or JSON, as kubectl prints and reads them; a List counts as its items. Stricter
than a plain YAML parser where the apiserver is: a key may not stand twice, and a date is a string.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpufleet_cli.errors import InputError
from gpufleet_cli.input.yaml_loader import Loader

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class Document:
    """One Kubernetes object. `where` is its file, and its position there when there are several."""

    where: str
    kind: str
    api_version: str
    name: str
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.where}: {self.kind} {self.name}"


def read(paths: Sequence[Path]) -> list[Document]:
    """Every object of these files, in order; `-` is stdin.

    Raises:
        InputError: a file can't be read or parsed, or something in it is no Kubernetes object.
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
        raise InputError(f"{where}: {kind}: items: {_wrong('a list', items)}")
    for number, item in enumerate(items or (), start=1):
        yield from _objects(f"{where}, item {number}", item)


def _field(where: str, body: Any, field: str) -> str:
    if not isinstance(body, dict):
        raise InputError(f"{where}: must be a Kubernetes object (got {show(body)})")
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {field}: {_wrong('a text', value)}")
    return value


def _name(where: str, kind: str, body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: {kind}: metadata.name: {_wrong('a name', name)}")
    return name


def _wrong(wanted: str, value: Any) -> str:
    return "is missing" if value is None else f"must be {wanted} (got {show(value)})"


def _text(path: Path, name: str) -> str:
    try:
        return sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is not UTF-8 text (byte {error.start})") from error


def _parse(name: str, text: str) -> list[Any]:
    try:
        if text.lstrip().startswith("{"):
            try:
                return [json.loads(text, object_pairs_hook=lambda pairs: _unique(name, pairs))]
            except json.JSONDecodeError:
                pass  # YAML may begin with a brace, too
        found = list(yaml.load_all(text, Loader=Loader))
        json.dumps(found)  # what JSON can't hold is no Kubernetes object: binary data, sets, an alias to itself
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line = f", line {at.line + 1}" if at else ""
        raise InputError(f"{name}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error
    except RecursionError:
        raise InputError(f"{name}: is nested too deeply") from None
    return found


def _unique(name: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{name}: the key {key!r} stands twice in one object")
        found[key] = value
    return found


def show(value: Any, limit: int = 60) -> str:
    """A value in a message: as JSON, cut to a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."
