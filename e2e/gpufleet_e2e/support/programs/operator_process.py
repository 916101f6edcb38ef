"""The operator from this checkout, as a process of this machine."""

import socket
import sys

# As in the image: no official client, which kopf would import, no rich, which structlog would, one thread of BLAS, and
# no certificates of public authorities.
# Collections while it imports are a tenth of the time of its start, which some tests make dozens of times.
_START = """\
import gc, os, sys
gc.disable()
sys.modules.update(kubernetes=None, rich=None)
os.environ.update(OPENBLAS_NUM_THREADS="1", SSL_CERT_FILE="/dev/null")
from gpufleet_operator.main import main
gc.enable()
main()
"""


def operator_command(*flags: str) -> list[str]:
    """Returns its command line."""
    return [sys.executable, "-c", _START, *flags]


def free_port() -> int:
    """Returns a port of the loopback that no process listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
