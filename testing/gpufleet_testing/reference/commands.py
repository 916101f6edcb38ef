"""Runs the `gpufleet` commands that pages show, and replaces what the pages show as their output."""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from typer.testing import CliRunner

from gpufleet_api.generate import ROOT
from gpufleet_cli.app import app

COLUMNS: Final = "110"
"""Width of the terminal on which the pages' commands run."""

BLOCK: Final = re.compile(
    r"(?P<head>^```\n\$ (?:\.venv/bin/)?gpufleet (?P<command>.*)\n)(?P<shown>(?:(?!```).*\n)*)(?P<foot>```)",
    re.MULTILINE,
)


def renew(text: str) -> str:
    """Returns the page with the output of its commands renewed; they run in the page's order, in one folder."""
    if not BLOCK.search(text):
        return text
    with _scratch_folder():
        return BLOCK.sub(lambda block: f"{block['head']}{_run(block['command'], block['shown'])}{block['foot']}", text)


def _run(command: str, shown: str) -> str:
    environment = {"COLUMNS": COLUMNS, "NO_COLOR": "1"}
    done = CliRunner().invoke(app, shlex.split(command), prog_name="gpufleet", env=environment, catch_exceptions=False)
    with_notes = "note: " in shown or not done.stdout
    return (done.stdout + done.stderr if with_notes else done.stdout).rstrip() + "\n"


@contextmanager
def _scratch_folder() -> Iterator[None]:
    here = Path.cwd()
    with TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
