"""Decodes a document into a model of the API, or reports the first field that is wrong."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from gpufleet_api.base import ApiModel
from gpufleet_cli.errors import InputError
from gpufleet_cli.input import field_errors
from gpufleet_cli.input.documents import Document

M = TypeVar("M", bound=ApiModel)
T = TypeVar("T")


def decode(model: type[M], document: Document) -> M:
    """Returns the model, decoded as strictly as by the apiserver: strings are not converted to numbers or back.

    Raises:
        InputError: A field is wrong. The message has document, field and value of the first one, and the number of
            other ones.
    """
    try:
        # Through JSON: only there does pydantic's strict mode accept a string for an enum.
        return model.model_validate_json(json.dumps(document.body), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        text = field_errors.of_pydantic(dict(problems[0]))
        raise InputError(f"{document}: {text}{_more(len(problems))}") from error


def convert(document: Document, function: Callable[[Mapping[str, Any]], T]) -> T:
    """Returns the object as a decoder of the operator reads it.

    Raises:
        InputError: The decoder fails: it expects objects that an apiserver has validated, and a file can contain
            anything.
    """
    try:
        return function(document.body)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{document}: cannot be decoded as {document.api_version}.{document.kind}: {error}") from error


def reject(document: Document, problems: Iterable[str]) -> None:
    """Raises InputError for the first problem, if there is one, with the number of other ones."""
    found = list(problems)
    if found:
        raise InputError(f"{document}: {found[0]}{_more(len(found))}")


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
