"""Runs the command line in this process."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from typer.testing import CliRunner

from gpufleet_cli.app import app


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def notes(self) -> list[str]:
        return [line.removeprefix("note: ") for line in self.err.splitlines() if line.startswith("note: ")]


class RunCli(Protocol):
    """Runs `gpufleet` with these arguments."""

    def __call__(self, *arguments: object, stdin: str = "") -> Result: ...


def run_cli(*arguments: object, stdin: str = "") -> Result:
    """Runs `gpufleet` with these arguments. An exception that escapes it is raised here."""
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], input=stdin, catch_exceptions=False, prog_name="gpufleet"
    )
    return Result(result.exit_code, result.stdout, result.stderr)
