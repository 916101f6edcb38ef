"""docs/cli.md shows what the commands print, to the letter."""

import re
import shlex
from typing import Any

import pytest

from gpufleet_api.generate import ROOT

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```\n\$ gpufleet (.*?)\n(.*?)\n```", PAGE, re.DOTALL)


def test_every_command_is_shown() -> None:
    assert {command.split()[0] for command, _ in SHOWN} == {"simulate", "rank", "explain", "distribute"}


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_the_page_shows_is_what_is_printed(
    command: str, shown: str, gpufleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "110")
    done = gpufleet(*shlex.split(command))
    whole = done.out + done.err
    assert shown in (done.out.rstrip(), whole.rstrip())


def test_the_page_names_every_option_that_its_examples_do_not_explain(gpufleet: Any) -> None:
    for command in ("simulate", "rank", "explain", "distribute"):
        options = set(re.findall(r"--[a-z-]+", gpufleet(command, "--help").out))
        assert options - {"--help", "--filename", "--output", "--workload", "--resource"} <= set(
            re.findall(r"--[a-z-]+", PAGE)
        )
