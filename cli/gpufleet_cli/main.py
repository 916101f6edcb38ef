"""The command `gpufleet`: what must hold before anything else is imported, which takes a moment."""

import signal
import sys

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 not placed, 2 bad input, 130 interrupted."""
    # As for any filter: the reader of a pipe may leave (`| head`), and that is no error worth a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        from gpufleet_cli.app import app  # noqa: PLC0415 - Ctrl-C during the imports ends as cleanly as later

        app(prog_name="gpufleet")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
