"""Reads and changes objects with kubectl, so that every credential that kubectl accepts works.

Lists are read by `kubectl get --raw`: it needs no discovery, and returns the apiserver's JSON as it is. A pod without
kubectl reads them as its ServiceAccount.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from gpufleet_cli.cluster.connection import Connection
from gpufleet_cli.cluster.failures import NO_KUBECTL, NO_KUBECTL_IN_POD, failure, unknown_context
from gpufleet_cli.cluster.service_account import ServiceAccount, server_time
from gpufleet_cli.errors import ClusterError
from gpufleet_common import timestamps
from gpufleet_operator.model.lenient_json import as_map, text

FIELD_MANAGER: Final = "gpufleet-cli"


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with the flags of a connection."""

    connection: Connection = field(default_factory=Connection)
    timeout_seconds: int = 30

    def get(self, path: str) -> Any:
        """Returns what the apiserver responds to GET, decoded. Raises ClusterError."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """Returns what the apiserver responds to GET. Raises ClusterError."""
        account = self._account()
        if account is not None:
            return account.get(path, self.connection).text
        return self.run("get", "--raw", path, about=path)

    def namespace(self) -> str:
        """Returns the namespace of the flags, of the kubeconfig's context, or `default`. Raises ClusterError."""
        if self.connection.namespace:
            return self.connection.namespace
        account = self._account()
        if account is not None:
            return account.namespace()
        chosen = "jsonpath={..namespace}"
        return self.run("config", "view", "--minify", "--output", chosen).strip() or "default"

    def server_time(self) -> datetime | None:
        """Returns the time by the apiserver's clock; None: it does not say. Raises ClusterError."""
        account = self._account()
        if account is not None:
            return server_time(account.get("/version", self.connection))
        review = as_map(json.loads(self.run("auth", "whoami", "--output=json")))
        try:
            return timestamps.parse(text(as_map(review.get("metadata")).get("creationTimestamp")))
        except ValueError:
            return None

    def contexts(self) -> list[str]:
        """Returns the contexts of the kubeconfig. Raises ClusterError."""
        given = [f"--kubeconfig={self.connection.kubeconfig}"] if self.connection.kubeconfig else []
        return _run(["config", "get-contexts", "--output=name", *given], "").split()

    def patch(self, plural: str, name: str, patch: Any, *, namespace: str | None = None, kind: str = "merge") -> None:
        """Patches an object. Raises ClusterError."""
        where = [f"--namespace={namespace}"] if namespace else []
        body = f"--patch={json.dumps(patch)}"
        manager = f"--field-manager={FIELD_MANAGER}"
        self.run("patch", plural, name, *where, f"--type={kind}", body, manager, about=plural)

    def run(self, *arguments: str, about: str = "", stdin: str | None = None) -> str:
        """Runs a kubectl command and returns its output.

        Args:
            arguments: The command.
            about: What the command reads or writes, for the message of an error.
            stdin: Input of the command.

        Raises:
            ClusterError: The command failed.
        """
        command = [*arguments, *self.connection.arguments(), f"--request-timeout={self.timeout_seconds}s"]
        try:
            return _run(command, about, stdin)
        except ClusterError as error:
            context = self.connection.context
            if context and "does not exist" in str(error) and context in str(error):
                raise unknown_context(context, self.contexts()) from error
            raise

    def follow(self, *arguments: str) -> int:
        """Runs a kubectl command on this terminal until it ends, and returns its exit code."""
        try:
            return subprocess.run(["kubectl", *arguments, *self.connection.arguments()], check=False).returncode
        except FileNotFoundError:
            raise _no_kubectl() from None

    def _account(self) -> ServiceAccount | None:
        """Returns the ServiceAccount of this pod, if there is no kubectl and no other cluster was chosen."""
        chosen = self.connection.kubeconfig or self.connection.context or os.environ.get("KUBECONFIG")
        if chosen or shutil.which("kubectl"):
            return None
        return ServiceAccount.of_this_pod(self.timeout_seconds)


def _run(command: Sequence[str], about: str, stdin: str | None = None) -> str:
    # kubectl prints warnings of the apiserver in color on a terminal only; NO_COLOR is passed on.
    try:
        done = subprocess.run(
            ["kubectl", *command], capture_output=True, text=True, check=False, env=os.environ, input=stdin or ""
        )
    except FileNotFoundError:
        raise _no_kubectl() from None
    except OSError as error:
        raise ClusterError(f"kubectl: {error.strerror}") from error
    if done.returncode != 0:
        raise failure(done.stderr or done.stdout, about)
    return done.stdout


def _no_kubectl() -> ClusterError:
    return ClusterError(NO_KUBECTL if ServiceAccount.of_this_pod(0) is None else NO_KUBECTL_IN_POD)
