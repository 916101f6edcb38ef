"""The operator from this checkout, as a process of this machine."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from os import kill
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any, Self

# As in the image: no official client, which kopf would import, no rich, which structlog would, and one thread of
# BLAS. Collections while it imports are a tenth of the time of its start.
_IMPORT = """\
import gc, json, os, sys
gc.disable()
sys.modules.update(kubernetes=None, rich=None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from gpufleet_operator.main import main
gc.enable()
"""
_START = f"{_IMPORT}main()\n"
_FORK = f"""{_IMPORT}
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        sys.exit(main(json.loads(line)))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class OperatorProcess:
    """A process that `OperatorStarter` started.

    Args:
        pid: Its process ID.
        statuses: The starter's output, whose next line is the exit status.
    """

    def __init__(self, pid: int, statuses: IO[str]) -> None:
        self._pid = pid
        self._ended = Event()
        self._status = 0
        Thread(target=self._read, args=(statuses,), daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if it has not ended."""
        if not self._ended.is_set():
            kill(self._pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; returns the exit status, or the negative number of the signal.

        Raises:
            TimeoutError: It has not ended in time.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"process {self._pid} still runs after {timeout:g} s")
        return self._status

    def _read(self, statuses: IO[str]) -> None:
        self._status = int(statuses.readline() or -signal.SIGKILL)
        self._ended.set()


class OperatorStarter:
    """Starts operators, one after the other: forks a process that has only imported, so that a start takes no second.

    Args:
        environment: Variables of the operators.
        log: Where they append what they write.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        command = [sys.executable, "-c", _FORK]
        pipe: Any = subprocess.PIPE
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=stream, env=dict(environment), text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the starter; the operator must have ended."""
        self._process.communicate()

    def start(self, *flags: str) -> OperatorProcess:
        """Starts an operator; the one before must have ended."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(json.dumps(flags) + "\n")
        requests.flush()
        return OperatorProcess(int(answers.readline()), answers)


def operator_command(*flags: str) -> list[str]:
    """Returns its command line."""
    return [sys.executable, "-c", _START, *flags]


def free_port() -> int:
    """Returns a port of the loopback that no process listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
