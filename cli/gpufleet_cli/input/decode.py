"""A document -> one of the API's models, or one message that names the field and the value."""

import json
from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError

from gpufleet_api.base import ApiModel
from gpufleet_cli.errors import InputError
from gpufleet_cli.input.documents import Document, show

M = TypeVar("M", bound=ApiModel)


def parse(model: type[M], document: Document) -> M:
    """Read as strictly as the apiserver: no text for a number, no number for a text.

    Raises:
        InputError: names document, field and value of the first problem, and how many more there are.
    """
    try:
        # Through JSON, because pydantic's strict mode takes an enum from a text there and nowhere else.
        return model.model_validate_json(json.dumps(document.body), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        text = first["msg"][:1].lower() + first["msg"][1:]
        got = "" if first["type"] == "missing" else f" (got {show(first['input'])})"
        raise InputError(f"{document}: {_path(first['loc'])}: {text}{got}{_more(len(problems))}") from error


def refuse(document: Document, problems: Iterable[str]) -> None:
    """Raise InputError when there is a problem, with the first and how many more there are."""
    found = list(problems)
    if found:
        raise InputError(f"{document}: {found[0]}{_more(len(found))}")


def _path(location: Iterable[str | int]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.lstrip(".")


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
