"""Completion in shells, and as a plugin of kubectl."""

from typing import Any, Final

from typer._completion_classes import BashComplete  # no public name
from typer._completion_shared import get_completion_script  # no public name

from gpufleet_cli.options.choices import Shell

PROGRAM: Final = "gpufleet"
VARIABLE: Final = "_GPUFLEET_COMPLETE"
_NO_FILES: Final = 4
_DEFAULT: Final = 0
"""Directives of cobra, kubectl's library: what the shell adds to the completions."""


def script(shell: Shell) -> str:
    """Returns the script for a shell."""
    return get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell)


def for_kubectl(command: Any, arguments: list[str]) -> str:
    """Returns completions as kubectl reads them from `kubectl_complete-gpufleet`.

    Args:
        command: The program's group of commands.
        arguments: The words after `kubectl gpufleet`, the last one incomplete.
    """
    *before, incomplete = arguments or [""]
    items = BashComplete(command, {}, PROGRAM, VARIABLE).get_completions(before, incomplete)
    names = [item for item in items if item.type == "plain"]
    lines = [f"{item.value}\t{item.help}" if item.help else str(item.value) for item in names]
    directive = _NO_FILES if names or not items else _DEFAULT
    return "\n".join([*lines, f":{directive}"]) + "\n"
