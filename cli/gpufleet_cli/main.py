"""The command `gpufleet`. Sets up signals before the imports, which take a moment."""

import contextlib
import errno
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from gpufleet_cli.exit_codes import BAD_INPUT, INTERRUPTED
from gpufleet_common.deep_documents import accept_deep_documents


def main() -> None:
    """Runs the command line and exits. See `exit_codes`."""
    # As in any filter: a reader that closes the pipe (`| head`) is not an error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.stdout is None:  # closed when the process started
        _fail(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    try:
        try:
            from gpufleet_cli.app import app  # noqa: PLC0415 - Ctrl-C during the imports exits as cleanly as later

            accept_deep_documents()
            app(prog_name=_name())
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:  # errors of input are InputErrors
        # Python flushes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(error)


def _name() -> str:
    """Returns the name of the program, as a user calls it."""
    return "kubectl gpufleet" if Path(sys.argv[0]).name.startswith("kubectl-") else "gpufleet"


def _fail(error: OSError) -> NoReturn:
    with contextlib.suppress(OSError, AttributeError):  # stderr can be full or closed as well
        sys.stderr.write(f"error: stdout: {error.strerror}\n")
        sys.stderr.flush()
    sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
