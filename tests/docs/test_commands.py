"""Every command of the operations pages and of the reference is run by a test, or says why not."""

import re
import shlex

import pytest

from gpufleet_api.generate import ROOT
from gpufleet_testing.cli.runner import built_command
from gpufleet_testing.reference.shell import OTHERWISE, RUN_PAGES, command_lines, shell_commands

COMMANDS = [command for page in RUN_PAGES for command in shell_commands(page)]
LINES = [
    (str(page.relative_to(ROOT)), line)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for line in command_lines(str(page.relative_to(ROOT)))
]


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 80
    assert {command.page for command in COMMANDS} == set(RUN_PAGES)


def test_every_operations_page_with_commands_is_run() -> None:
    pages = [str(page.relative_to(ROOT)) for page in (ROOT / "docs/operations").rglob("*.md")]
    assert [page for page in pages if page not in RUN_PAGES and list(shell_commands(page))] == []


def test_every_exception_is_of_a_command() -> None:
    texts = [command.text for command in COMMANDS]
    assert [start for start in OTHERWISE if not any(text.startswith(start) for text in texts)] == []


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}-{line[:40]}" for page, line in LINES])
def test_shown_command_line_has_known_commands_and_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    command = built_command()
    context = command.make_context("gpufleet", list(words), resilient_parsing=True)
    while hasattr(command, "resolve_command") and words:
        _, command, words = command.resolve_command(context, words)
        assert command is not None, page
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= known
