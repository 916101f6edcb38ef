"""Runs the command line in this process."""

import json
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from typer.main import get_command
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
    code: object = 0
    with CliRunner().isolation(input=stdin) as (out, err, _):
        try:
            built_command().main([str(a) for a in arguments], prog_name="gpufleet")
        except SystemExit as end:
            code = end.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [stream.getvalue().decode() for stream in (out, err)]
    assert isinstance(code, int), f"exit status {code!r}"
    return Result(code, *texts)


@cache
def built_command() -> Any:
    """Builds the commands with their options once, as a process does; it takes longer than most of them run."""
    return get_command(app)
