"""docs/reference/cli.md shows every command and option. Their output is checked in tests/docs."""

import re

from gpufleet_api.generate import ROOT
from gpufleet_testing.cli.commands import ALL
from gpufleet_testing.cli.runner import run_cli
from gpufleet_testing.reference.commands import BLOCK

PAGE = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
CONNECTION = {"--kubeconfig", "--context", "--namespace", "--all-namespaces", "--as", "--as-group", "--from"}
COMMANDS = ("simulate", "replay", "rank", "explain", "summary", "distribute", "top", "who", "recommend")
"""Commands whose output is generated."""


def test_page_shows_every_command() -> None:
    assert {block["command"].split()[0] for block in BLOCK.finditer(PAGE)} == set(COMMANDS)


def test_page_names_the_commands_that_need_a_cluster() -> None:
    commands = {name.split()[0] for name in ALL} - set(COMMANDS)
    assert {
        name for name in commands if not re.search(rf"^#+ .*\b{name}\b|`(?:gpufleet )?{name}\b", PAGE, re.MULTILINE)
    } == set()


def test_page_names_every_option_that_its_examples_do_not_explain() -> None:
    for command in COMMANDS:
        options = set(re.findall(r"--[a-z-]+", run_cli(command, "--help").out))
        assert options - {
            *CONNECTION,
            "--help",
            "--filename",
            "--output",
            "--no-headers",
            "--workload",
            "--resource",
        } <= set(re.findall(r"--[a-z-]+", PAGE))
