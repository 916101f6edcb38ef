"""The command `kubectl_complete-gpufleet`, which kubectl runs to complete `kubectl gpufleet`."""

import sys

from typer.main import get_command

from gpufleet_cli.app import app
from gpufleet_cli.options.completion import for_kubectl


def main() -> None:
    """Prints the completions of the words in the arguments."""
    sys.stdout.write(for_kubectl(get_command(app), sys.argv[1:]))


if __name__ == "__main__":
    main()
