"""docs/reference/cli.md and README.md show what the commands print, to the letter."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gpufleet_api.generate import ROOT

PAGE = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = list(dict.fromkeys(re.findall(r"```\n\$ gpufleet (.*?)\n(.*?)\n```", PAGE + README, re.DOTALL)))


def test_every_command_is_shown() -> None:
    assert {command.split()[0] for command, _ in SHOWN} == {
        "simulate",
        "replay",
        "rank",
        "explain",
        "summary",
        "distribute",
    }


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_the_page_shows_is_what_is_printed(
    command: str, shown: str, gpufleet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    if command.startswith("replay"):
        (saving,) = [other for other, _ in SHOWN if "--save" in other]
        gpufleet(*shlex.split(saving))
    done = gpufleet(*shlex.split(command))
    whole = done.out + done.err
    assert shown in (done.out.rstrip(), whole.rstrip())


def test_the_page_names_every_option_that_its_examples_do_not_explain(gpufleet: Any) -> None:
    for command in ("simulate", "replay", "rank", "explain", "summary", "distribute"):
        options = set(re.findall(r"--[a-z-]+", gpufleet(command, "--help").out))
        assert options - {"--help", "--filename", "--output", "--workload", "--resource"} <= set(
            re.findall(r"--[a-z-]+", PAGE)
        )
