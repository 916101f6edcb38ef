"""Removes a kind cluster when the process that started it has ended, also when it was killed.

Reads a lifeline on standard input: its end means remove, a byte "d" before it means detach.
"""

import subprocess
import sys
from collections.abc import Sequence

DETACH = b"d"


def command(removal: Sequence[str]) -> list[str]:
    """Returns the command line of a monitor. Run by its file: `-m` warns about a module that its package imports."""
    return [sys.executable, "-I", __file__, *removal]


def main() -> None:
    """Waits for the end of standard input, then runs the command given as arguments."""
    if sys.stdin.buffer.read(1) != DETACH:
        sys.exit(subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, check=False).returncode)


if __name__ == "__main__":
    main()
