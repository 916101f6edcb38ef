"""An admission webhook that never responds to the creation of pods in one namespace."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gpufleet_e2e.support.api import Api, pods
from gpufleet_e2e.support.manifests import plain_pod
from gpufleet_e2e.support.polling import eventually

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
IN_FORCE_SECONDS = 30


class SilentServer:
    """Accepts connections and never sends anything.

    Args:
        peer: Address of the machine that connects; the server listens on this machine's address on that network.
    """

    def __init__(self, peer: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 1))  # sends nothing
            address = probe.getsockname()[0]
        self._socket = socket.create_server((address, 0))
        self.address = f"{address}:{self._socket.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections, so that the requests that wait for a response fail."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self.connections:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                self.connections.append(self._socket.accept()[0])


@contextmanager
def pod_creations_hang(api: Api, namespace: str) -> Iterator[SilentServer]:
    """Lets every creation of a pod in this namespace hang while the block runs. Yields the webhook's server."""
    server = SilentServer(api.host)
    name = f"e2e-hangs-{namespace}"
    webhook = {
        "name": "hangs.gpufleet.dev",
        "clientConfig": {"url": f"https://{server.address}/"},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "timeoutSeconds": 30,
        "admissionReviewVersions": ["v1"],
    }
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    api.create(WEBHOOKS, {**head, "metadata": {"name": name}, "webhooks": [webhook]})
    probes: list[threading.Thread] = []

    def in_force() -> None:
        """Webhooks reach the apiserver's admission a moment after they are written."""
        if not server.connections:
            body = plain_pod("probe")
            probe = threading.Thread(target=lambda: api.try_create(pods(namespace), body, dry_run=True), daemon=True)
            probe.start()
            probes.append(probe)
            probe.join(0.5)
        assert server.connections, "the webhook is not called yet"

    try:
        eventually(in_force, within=IN_FORCE_SECONDS)
        yield server
    finally:
        api.delete(f"{WEBHOOKS}/{name}")
        server.close()
        for probe in probes:
            probe.join()
