"""Completion in shells, and as a plugin of kubectl."""

from typing import Any, Final

from typer._completion_classes import BashComplete  # no public name
from typer._completion_shared import get_completion_script  # no public name

from gpufleet_cli.options.choices import Shell

PROGRAM: Final = "gpufleet"
VARIABLE: Final = "_GPUFLEET_COMPLETE"
_NO_FILES: Final = 4
_DEFAULT: Final = 0
"""Directives of cobra, kubectl's library: whether the shell adds names of files."""


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
    lines = [f"{item.value}\t{item.help}" if item.help else str(item.value) for item in items]
    return "\n".join([*lines, f":{_NO_FILES if lines else _DEFAULT}"]) + "\n"
