"""Process 1 of a PID namespace: starts programs on request, reaps orphans, ends with its lifeline.

Runs as a file with only the standard library, once for the cluster and once in each node. When it ends, the kernel ends
every process of its namespace, so that no process has to be found by name.

Protocol: one JSON object per connection on a Unix stream socket, one JSON object back.
    {"do": "start", "unit": "etcd", "argv": [...], "log": "/path", "env": {...}}   without argv: as it was last started
    {"do": "signal", "unit": "etcd", "signal": 15}
    {"do": "status"}                                               -> {"units": {"etcd": {"pid": 7, "exit": null}}}
"""

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
from pathlib import Path
from typing import Any


class Supervisor:
    """The units of a namespace."""

    def __init__(self) -> None:
        self._spawned: dict[str, dict[str, Any]] = {}
        self._pids: dict[str, int] = {}
        self._exits: dict[str, int | None] = {}

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Handles one request; an invalid one returns {"error": text}."""
        try:
            match request["do"]:
                case "start":
                    return self._start(request)
                case "signal":
                    return self._signal(request["unit"], int(request["signal"]))
                case "status":
                    units = {name: {"pid": pid, "exit": self._exits[name]} for name, pid in self._pids.items()}
                    return {"units": units}
                case other:
                    return {"error": f"unknown request {other!r}"}
        except (KeyError, ValueError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def reap(self) -> None:
        """Reaps every dead child, including adopted orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name, known in self._pids.items():
                if known == pid:
                    self._exits[name] = os.waitstatus_to_exitcode(status)

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["unit"]
        if name in self._pids and self._exits[name] is None:
            return {"error": f"{name} is already running"}
        unit = request if "argv" in request else self._spawned[name]
        argv = unit["argv"]
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._pids[name] = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, **unit.get("env", {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, unit["log"], append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # Python ignores SIGPIPE, which children would inherit.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        self._exits[name] = None
        self._spawned[name] = unit
        return {"pid": self._pids[name]}

    def _signal(self, name: str, number: int) -> dict[str, Any]:
        if self._exits[name] is None:
            os.kill(self._pids[name], number)
        return {}


def _answer(listener: socket.socket, supervisor: Supervisor) -> None:
    connection, _ = listener.accept()
    # A caller that disconnects or sends an invalid request must not end the cluster.
    with connection, contextlib.suppress(OSError, ValueError):
        connection.settimeout(5)
        with connection.makefile("rwb") as stream:
            reply = supervisor.handle(json.loads(stream.readline()))
            stream.write(json.dumps(reply).encode() + b"\n")


def _serve(path: Path, supervisor: Supervisor, *, lifeline: bool) -> None:
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # The name appears after the socket listens, so that a process that sees it can connect.
    unready = path.with_suffix(".new")
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(unready))
        unready.chmod(0o600)
        listener.listen(64)
        unready.rename(path)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        if lifeline:
            selector.register(0, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0 and not os.read(0, 1):
                    return  # the lifeline is closed
                if key.fd == wake_read:
                    os.read(wake_read, 4096)
                    supervisor.reap()
                if key.fileobj is listener:
                    _answer(listener, supervisor)


def main() -> None:
    """Joins the cgroups, then serves."""
    parser = argparse.ArgumentParser(description="Process 1 of a namespace of the test bed.")
    parser.add_argument("socket", type=Path, help="path of the Unix socket")
    parser.add_argument("--lifeline", action="store_true", help="end when standard input ends")
    parser.add_argument("--cgroup", action="append", default=[], type=Path, help="cgroup folder to join")
    options = parser.parse_args()
    for folder in options.cgroup:
        (folder / "cgroup.procs").write_text("0")
    _serve(options.socket, Supervisor(), lifeline=options.lifeline)


if __name__ == "__main__":
    main()
