"""Help texts show arguments as users type them."""

import re

import pytest

from gpufleet_testing.cli.commands import ALL
from gpufleet_testing.cli.runner import run_cli

USAGES = {
    "top": "[OPTIONS] [NODE...]",
    "status": "[OPTIONS] [[NAMESPACE/]WORKLOAD...]",
    "explain": "[OPTIONS] [[NAMESPACE/]WORKLOAD|POD]",
    "who": "[OPTIONS] GPU|NODE|[NAMESPACE/]POD",
    "suspend": "[OPTIONS] [NAMESPACE/]WORKLOAD...",
    "cordon": "[OPTIONS] GPU...",
    "acknowledge": "[OPTIONS] NODE [GPU]",
    "snapshot save": "[OPTIONS] DIR",
}


@pytest.mark.parametrize("command", ALL)
def test_help_has_no_brackets_and_types_of_the_library(command: str) -> None:
    done = run_cli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    (usage,) = re.findall(rf"Usage: gpufleet {command} (.*\S)", done.out)
    assert usage == USAGES.get(command, usage)
    assert re.findall(r"<\w+(?:\[\w+\])?>|\]\.\.\.|[{}]", done.out) == []


def test_missing_argument_with_choices_is_one_line() -> None:
    done = run_cli("completion")
    assert done.err.splitlines()[0] == "error: missing argument 'SHELL'. Choose from: bash, zsh, fish"


def test_ends_of_a_cordon_exclude_each_other() -> None:
    done = run_cli("cordon", "node-1/0", "--until", "2030-01-01T00:00:00Z", "--for-hours", "2", "--reason", "fan")
    assert done.err == "error: --until and --for-hours are mutually exclusive\n"
