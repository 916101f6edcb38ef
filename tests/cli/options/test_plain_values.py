"""Values of options have the same form and the same errors with and without typer's validators."""

from typing import Any

import pytest
import typer

from gpufleet_cli.options import command_group
from gpufleet_testing.cli.runner import run_cli

CASES = (
    ["distribute", "--items", "7", "--capacity", "a=1", "--capacity", "b=2.5", "--max", "a=2", "-o", "json"],
    ["distribute", "--items", "seven", "--capacity", "a=1"],
    ["distribute", "--items", "7", "--capacity", "a=1", "-o", "xml"],
    ["distribute", "--items", "7", "--capacity", "a=1", "--no-headers"],
    ["top", "--from", "examples/fleets/mixed.yaml", "node-1", "node-2", "-n", "web", "--no-headers"],
    ["rank", "--from", "examples/fleets/mixed.yaml", "--min-free-memory", "40000", "--limit", "1", "-o", "name"],
    ["rank", "--from", "examples/fleets/none.yaml"],
)


@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_result_is_that_of_typers_validators(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_cli(*arguments)
    monkeypatch.setattr(command_group, "read_plain_values", lambda _: None)
    assert run_cli(*arguments) == plain


def test_value_that_is_not_plain_is_validated_by_typer() -> None:
    used: list[Any] = []

    def command(count: int = 1, ratio: float = 0.5) -> None:
        used.append((count, ratio))

    own = typer.Typer(add_completion=False)
    own.command(cls=command_group.Command)(command)
    typer.main.get_command(own).main(["--count", "3", "--ratio", "0.25"], standalone_mode=False)
    assert used == [(3, 0.25)]
