"""Reads plain values of options without pydantic. Importing it takes longer than the work of most commands.

typer 0.29 builds a validator of pydantic for each option, also for one that is not given.
"""

from collections.abc import Callable
from typing import Any, get_args, get_origin


def read_plain_values(params: list[Any]) -> None:
    """Lets strings, flags, parsed and absent values of these options of typer skip its validators."""
    for param in params:
        if getattr(param, "_runtime_param", False) is None:  # older versions of typer do without pydantic
            descriptor = param.type_descriptor
            plain = _PlainValues(descriptor.annotation, descriptor.parameter_info.parser)
            param._runtime_param = plain  # noqa: SLF001 - typer has no public way


class _PlainValues:
    """Takes the place of typer's RuntimeParam, and gives it all other values. Parsers raise InputError."""

    def __init__(self, annotation: Any, parser: Callable[[str], Any] | None) -> None:
        self._annotation = annotation
        self._parser = parser

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Returns the value of an option, as typer's RuntimeParam."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        found = self._plain(value, self._annotation)
        if found is not None:
            return found
        param._runtime_param = None  # noqa: SLF001 - as above
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)

    def _plain(self, value: Any, annotation: Any) -> Any:
        """Returns the value; None: it is not a plain one."""
        if get_origin(annotation) is list:
            (item,) = get_args(annotation)
            found = [self._plain(one, item) for one in value] if isinstance(value, list | tuple) else [None]
            return None if None in found else found
        if self._parser is not None:
            return self._parser(value)
        return value if annotation in (str, bool) and type(value) is annotation else None
