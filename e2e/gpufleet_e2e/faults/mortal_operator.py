"""An operator from this checkout in place of the installed one, which is started again whenever it is killed."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import yaml

from gpufleet_e2e.faults import writes
from gpufleet_e2e.faults.killing_proxy import KillingProxy, serving
from gpufleet_e2e.support.fleet import OPERATOR, READY_SECONDS, Fleet
from gpufleet_e2e.support.install import NAMESPACE
from gpufleet_e2e.support.polling import eventually
from gpufleet_e2e.support.programs.operator_process import OperatorProcess, OperatorStarter, free_port

_ACCOUNT = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/gpufleet-operator"
_TOKEN_SECONDS = 7200
_END_SECONDS = 15
"""From SIGTERM to the end of a process."""


class MortalOperator:
    """A process whose requests pass through a proxy.

    Args:
        fleet: Its installed operator must be stopped. This one has its flags and its ServiceAccount.
        folder: For the kubeconfig and the log.
        flags: Instead of those of the installed one with the same names.
    """

    def __init__(self, fleet: Fleet, folder: Path, *flags: str) -> None:
        self.proxy = KillingProxy(fleet.cluster.kubeconfig, self._kill)
        self._fleet, self._folder = fleet, folder
        self._log = folder / "operator.log"
        # Without a Lease unless the flags ask for one: each successor of a killed process would wait for it.
        self._own_flags = ("--leader-election=false", *flags)
        self._flags: list[str] = []
        self._process: OperatorProcess | None = None
        self._started = threading.Condition()
        self._ended = threading.Event()
        self._port = 0
        self.ends: list[int] = []
        """Exit status of each process that has ended by itself, or was killed; without those that were asked to end."""
        self._asked = False

    def start(self) -> None:
        """Starts it, and returns when it is ready."""
        found = self._fleet.api.get(OPERATOR)["spec"]["template"]["spec"]["containers"][0]["args"]
        self._port = free_port()
        own = [f"--listen=127.0.0.1:{self._port}", f"--lease-namespace={NAMESPACE}", *self._own_flags]
        names = {flag.partition("=")[0] for flag in own}
        # Of a flag that is repeated, the last one counts.
        self._flags = [*(flag for flag in found if flag.partition("=")[0] not in names), *own]
        self._write_kubeconfig()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        eventually(self._ready, within=READY_SECONDS)

    def stop(self) -> None:
        """Ends it with SIGTERM."""
        self._ended.set()
        if self._process is not None:
            self._process.send(signal.SIGTERM)
        self._keeper.join()

    def check_leads(self) -> None:
        """Asserts that a process leads that is not killed at one of the writes that it makes while it does."""
        left = self.proxy.due().keys() - {writes.RELEASE_LEASE}
        assert not left, f"not killed: {left}"
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=2) as response:
                assert b"\ngpufleet_operator_leader 1.0\n" in response.read(), "the process does not lead"
        except OSError as error:
            raise AssertionError(f"no process: {error}") from error

    def hand_over(self) -> None:
        """Ends the process with SIGTERM, so that it releases the Lease. Another one is started."""
        assert self._process is not None
        ending, self._asked = self._process, True
        ending.send(signal.SIGTERM)
        ending.wait(_END_SECONDS)

    def check(self) -> None:
        """Asserts that it was killed as planned, and never ended by itself."""
        assert not self.proxy.due(), f"not killed: {self.proxy.due()}"
        assert self.ends == [-signal.SIGKILL] * len(self.proxy.kills), (
            f"{self.ends} after {self.proxy.kills}; see {self._log}"
        )

    def _keep(self) -> None:
        environment = {**os.environ, "KUBECONFIG": str(self._folder / "kubeconfig"), "NO_PROXY": "127.0.0.1"}
        with OperatorStarter(environment, self._log) as starter:
            while not self._ended.is_set():
                process = starter.start(*self._flags)
                with self._started:
                    self._process = process
                    self._started.notify_all()
                status = process.wait()
                asked, self._asked = self._asked, False
                if not self._ended.is_set() and not (asked and status == 0):
                    self.ends.append(status)

    def _kill(self) -> None:
        # The process that is to be killed may send a request before `_keep` has noted it.
        with self._started:
            assert self._started.wait_for(lambda: self._process is not None and not self._process.has_ended, 30)
            process = self._process
        assert process is not None
        process.send(signal.SIGKILL)
        process.wait()

    def _ready(self) -> None:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=2) as response:
                assert response.status == 200
        except OSError as error:
            raise AssertionError(f"not ready: {error}") from error

    def _write_kubeconfig(self) -> None:
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        body = {**request, "spec": {"expirationSeconds": _TOKEN_SECONDS}}
        token = self._fleet.api.create(f"{_ACCOUNT}/token", body)["status"]["token"]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.proxy.port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (self._folder / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")


@contextmanager
def mortal_operator(fleet: Fleet, folder: Path, *flags: str) -> Iterator[MortalOperator]:
    """Replaces the installed operator by one that can be killed at any write, while the block runs.

    Afterwards there is none: the caller installs the chart again.
    """
    fleet.stop_operator()
    operator = MortalOperator(fleet, folder, *flags)
    with serving(operator.proxy):
        operator.start()
        try:
            yield operator
        finally:
            operator.stop()
