"""Client of a supervisor: starts, signals and watches the units of a namespace."""

import json
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpufleet_testbed.errors import ClusterError

_STOP_SECONDS = 20.0
_MAX_TAIL = 2000


@dataclass(frozen=True)
class Unit:
    """A program of a supervisor."""

    pid: int
    """In the supervisor's PID namespace."""
    exit: int | None
    """Exit status, negative for a signal; None while it runs."""


class SupervisorClient:
    """Client of the supervisor at one socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, unit: str, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> int:
        """Starts a unit and returns its PID in the namespace."""
        reply = self._request({"do": "start", "unit": unit, "argv": list(argv), "log": str(log), "env": dict(env)})
        return int(reply["pid"])

    def restart(self, unit: str) -> int:
        """Starts a unit again as it was last started."""
        return int(self._request({"do": "start", "unit": unit})["pid"])

    def stop(self, unit: str, number: int = signal.SIGTERM, timeout: float = _STOP_SECONDS) -> None:
        """Signals a unit and waits for its end; kills it after `timeout` seconds."""
        self._request({"do": "signal", "unit": unit, "signal": int(number)})
        deadline = time.monotonic() + timeout
        while self.units()[unit].exit is None:
            if time.monotonic() > deadline:
                self._request({"do": "signal", "unit": unit, "signal": int(signal.SIGKILL)})
                deadline += timeout
            time.sleep(0.01)

    def units(self) -> dict[str, Unit]:
        """Returns every unit that was started."""
        return {name: Unit(**unit) for name, unit in self._request({"do": "status"})["units"].items()}

    def require(self, unit: str, log: Path) -> None:
        """Checks that a unit runs.

        Raises:
            ClusterError: It has ended; the message contains the last lines of its log.
        """
        found = self.units()[unit]
        if found.exit is not None:
            raise ClusterError(f"{unit} ended with status {found.exit}, last lines of {log}:\n{tail(log)}")

    def _request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(str(self.path))
                with connection.makefile("rwb") as stream:
                    stream.write(json.dumps(request).encode() + b"\n")
                    stream.flush()
                    reply: dict[str, Any] = json.loads(stream.readline() or b"{}")
        except OSError as error:
            raise ClusterError(f"no response from {self.path}: {error}") from error
        if "error" in reply:
            raise ClusterError(f"{request['do']} {request.get('unit', '')}: {reply['error']}")
        return reply


def tail(log: Path) -> str:
    """Returns the last lines of a log."""
    try:
        return log.read_text(errors="replace")[-_MAX_TAIL:].strip()
    except FileNotFoundError:
        return "(no log)"
