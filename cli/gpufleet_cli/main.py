"""The command `gpufleet`. Sets up signals before the imports, which take a moment."""

import signal
import sys

from gpufleet_cli.exit_codes import INTERRUPTED


def main() -> None:
    """Runs the command line and exits. See `exit_codes`."""
    # As in any filter: a reader that closes the pipe (`| head`) is not an error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        from gpufleet_cli.app import app  # noqa: PLC0415 - Ctrl-C during the imports exits as cleanly as later

        app(prog_name="gpufleet")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
