"""The process that owns a local cluster: starts its namespaces, and cleans up when it is to end.

It ends the cluster when its lifeline (a pipe held by the caller) is cut before a byte "d" (detach) came, on SIGTERM,
SIGINT or SIGHUP, and when the cluster's process 1 has ended. It holds the lock file as long as it lives. If it is
killed itself, the kernel ends the cluster (its supervisor sees the end of its own lifeline) and the next `up` or
`down` removes the rest.
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
    """Run the cluster's namespace until it is to end, then tear it down."""
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
    """Keep a cluster; the caller has made its folder and holds the other end of the lifeline."""
    parser = argparse.ArgumentParser(description="owner process of a local test cluster")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--name", required=True, help="the cluster's name")
    parser.add_argument("--lifeline", type=int, required=True, help="descriptor of a pipe; its end ends the cluster")
    parser.add_argument("--lock", type=int, required=True, help="descriptor of the locked lock file, held until exit")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    os.set_inheritable(options.lifeline, False)
    os.set_inheritable(options.lock, False)
    try:
        monitor(options.root, options.name, options.lifeline, options.command)
        lock_file(options.root).unlink(missing_ok=True)  # while this process still holds the lock
    except Exception:  # whatever it is, whoever waits for this process must find the reason
        # Beside the lock file, because the log's folder may be gone already.
        options.root.with_suffix(".error").write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
