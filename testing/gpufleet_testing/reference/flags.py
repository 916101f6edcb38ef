"""Tables of command line flags, from the parsers of agent, operator and command line."""

import argparse
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import typer
from typer.core import TyperGroup

from gpufleet_agent import settings as agent_settings
from gpufleet_cli.app import app
from gpufleet_cli.options.target import NAMES, connection_params
from gpufleet_operator import settings as operator_settings
from gpufleet_testing.reference.markdown import code, table


class _FoundError(Exception):
    """Carries the parser out of the function that uses it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def agent() -> str:
    """Returns the table of flags of gpufleet-agent."""
    return _flags(_parser(lambda: agent_settings.parse([])))


def operator() -> str:
    """Returns the table of flags of gpufleet-operator."""
    return _flags(_parser(lambda: operator_settings.parse([])))


def command_line() -> str:
    """Returns a table of options for each command of gpufleet."""
    parts = [f"### Options of the cluster\n{_options(connection_params())}"]
    for name, command in _commands(typer.main.get_command(app), ""):
        options = [option for option in command.params if option.name not in NAMES]
        if options:
            parts.append(f"### {name}\n{_options(options)}")
    return "\n\n".join(parts)


def _commands(group: object, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields all commands, those of a group with its name."""
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _options(options: Iterable[Any]) -> str:
    rows = []
    for option in options:
        names = ", ".join(code(flag) for flag in option.opts + option.secondary_opts)
        if option.param_type_name == "argument":
            names = code(option.metavar or option.name)
        default = "" if option.default is None or option.default is False else str(option.default)
        rows.append((names, code(default), "yes" if option.required else "", option.help or ""))
    return table(("option", "default", "required", "meaning"), rows)


def _parser(parse: Callable[[], object]) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _FoundError(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            parse()
        except _FoundError as found:
            return found.parser
    raise AssertionError("no parser is used")


def _flags(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        if action.dest == "help" or argparse.SUPPRESS in (action.dest, action.help):  # and --version, hidden flags
            continue
        values = ", ".join(map(str, action.choices)) if action.choices else action.metavar or ""
        default = "" if action.default in (None, False, argparse.SUPPRESS) else str(action.default)
        rows.append((code(", ".join(action.option_strings)), str(values), code(default), _help(action)))
    return table(("flag", "value", "default", "meaning"), rows)


def _help(action: argparse.Action) -> str:
    return re.sub(r" *\(default: [^)]*\)", "", action.help or "")
