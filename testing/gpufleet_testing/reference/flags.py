"""Tables of command line flags, from the parsers of agent, operator and command line."""

import argparse
import re
from collections.abc import Callable
from unittest import mock

import typer

from gpufleet_agent import settings as agent_settings
from gpufleet_cli.app import app
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
    group = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():  # type: ignore[attr-defined] # a group, as there are several commands
        rows = []
        for option in command.params:
            names = ", ".join(code(flag) for flag in option.opts + option.secondary_opts)
            default = "" if option.default is None or option.default is False else str(option.default)
            rows.append((names, code(default), "yes" if option.required else "", option.help or ""))
        if rows:
            parts.append(f"### {name}\n{table(('option', 'default', 'required', 'meaning'), rows)}")
    return "\n\n".join(parts)


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
