"""The process that owns a local cluster: starts its namespaces, and cleans up at its end.

It ends the cluster when its lifeline (a pipe from the caller) is closed without a byte "d" (detach), on SIGTERM, SIGINT
or SIGHUP, and when the cluster's process 1 has ended. It holds the lock file as long as it runs. If it is killed, the
kernel ends the cluster (its supervisor sees the end of another lifeline), and the next `up` or `down` removes the rest.
"""

import argparse
import os
import selectors
import signal
import subprocess
import traceback
from pathlib import Path

from gpufleet_testbed.local.layout import lock_file
from gpufleet_testbed.local.processes.process_id import ProcessId
from gpufleet_testbed.local.teardown import Processes, tear_down, write_processes

DETACH = b"d"


def monitor(root: Path, name: str, lifeline: int, command: list[str]) -> None:
    """Runs the cluster's namespace until it has to end, then removes the cluster."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    env = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=env) as namespace:
        try:
            write_processes(root, Processes(ProcessId.of(os.getpid()), ProcessId.of(namespace.pid)))
            _wait(lifeline, wake_read, namespace)
        finally:
            namespace.kill()
            namespace.wait()
            tear_down(root, name)


def _wait(lifeline: int, wake: int, namespace: subprocess.Popen[bytes]) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(lifeline, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == wake:
                    signals = set(os.read(wake, 4096))
                    if signals - {signal.SIGCHLD} or namespace.poll() is not None:
                        return
                elif os.read(lifeline, 1) == DETACH:
                    selector.unregister(lifeline)
                else:
                    return


def main() -> None:
    """Monitors a cluster; the caller has created its folder and holds the other end of the lifeline."""
    parser = argparse.ArgumentParser(
        description="Owns a local test cluster: starts its namespaces and cleans up at its end."
    )
    parser.add_argument("--root", type=Path, required=True, help="the cluster's folder")
    parser.add_argument("--name", required=True, help="the cluster's name")
    parser.add_argument(
        "--lifeline", type=int, required=True, help="descriptor of a pipe; the cluster ends when it is closed"
    )
    parser.add_argument("--lock", type=int, required=True, help="descriptor of the locked lock file, held until exit")
    parser.add_argument("command", nargs="+", help="starts the cluster's namespaces")
    options = parser.parse_args()
    os.set_inheritable(options.lifeline, False)
    os.set_inheritable(options.lock, False)
    try:
        monitor(options.root, options.name, options.lifeline, options.command)
        lock_file(options.root).unlink(missing_ok=True)  # while this process still holds the lock
    except Exception:  # any error must be visible to the process that waits for this one
        # Next to the lock file, because the log's folder may be gone.
        options.root.with_suffix(".error").write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
