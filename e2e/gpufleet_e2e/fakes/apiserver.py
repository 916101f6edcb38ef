"""A fake apiserver with one node's GPUTelemetry object and the Lease of its agent, which counts writes."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

NODE_UID = "7f6a0c5e-0000-4000-8000-000000000001"
OBJECT_UID = "7f6a0c5e-0000-4000-8000-000000000002"
LEASES = "/apis/coordination.k8s.io/v1/"
BOOKMARK_SECONDS = 60.0
TELEMETRIES = "/apis/gpufleet.dev/v1alpha1/gputelemetries"


@dataclass
class ApiServer:
    """State of one Node and its GPUTelemetry object; every write notifies watches."""

    node: str
    spec: dict[str, Any] = field(default_factory=dict)
    written: int = 0
    written_at: list[float] = field(default_factory=list)
    """`time.monotonic()` of each write."""
    written_bytes: int = 0
    renewed_at: list[float] = field(default_factory=list)
    """`time.monotonic()` of each renewal of the Lease, which is not counted as a write."""
    status: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    changed: threading.Condition = field(default_factory=threading.Condition)
    closed: bool = False

    def document(self) -> dict[str, Any]:
        """Returns the current object."""
        metadata = {
            "name": self.node,
            "uid": OBJECT_UID,
            "generation": 1,
            "resourceVersion": str(self.version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "managedFields": [{"manager": "gpufleet-agent", "operation": "Apply", "subresource": "status"}],
        }
        kind = {"apiVersion": "gpufleet.dev/v1alpha1", "kind": "GPUTelemetry"}
        return {**kind, "metadata": metadata, "spec": self.spec, "status": self.status}

    def write(self, what: str, body: dict[str, Any], size: int) -> dict[str, Any]:
        """Applies a write."""
        with self.changed:
            self.written += 1
            self.written_at.append(time.monotonic())
            self.written_bytes += size
            if what == "gputelemetries/status":
                self.status = body["status"]
            self.version += 1
            self.changed.notify_all()
            return self.document()

    def events(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Yields an event now, after each write, and while there is none once a minute, until the time is over."""
        end = time.monotonic() + seconds
        seen = -1
        while True:
            with self.changed:
                bookmark_at = min(end, time.monotonic() + BOOKMARK_SECONDS)
                while self.version == seen and not self.closed and time.monotonic() < bookmark_at:
                    self.changed.wait(bookmark_at - time.monotonic())
                if self.closed or (self.version == seen and bookmark_at == end):
                    return
                kind = "BOOKMARK" if self.version == seen else "ADDED" if seen < 0 else "MODIFIED"
                seen = self.version
                found = {"metadata": {"resourceVersion": str(seen)}} if kind == "BOOKMARK" else self.document()
            yield {"type": kind, "object": found}

    def close(self) -> None:
        """Ends all watches."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: ClassVar[ApiServer]

    def do_GET(self) -> None:
        """Serves the node, the object, or its watch."""
        path, _, query = self.path.partition("?")
        if path == f"/api/v1/nodes/{self.served.node}":
            self._respond({"kind": "Node", "apiVersion": "v1", "metadata": {"name": self.served.node, "uid": NODE_UID}})
        elif path == f"{TELEMETRIES}/{self.served.node}":
            self._respond(self.served.document())
        elif path == TELEMETRIES and "watch" in query:
            self._watch(next(float(part[15:]) for part in query.split("&") if part.startswith("timeoutSeconds=")))
        else:
            self._respond({"kind": "Status", "code": 404, "message": self.path}, 404)

    def do_PATCH(self) -> None:
        """Serves a server-side apply."""
        body = self._body()
        if self.path.startswith(LEASES):
            self.served.renewed_at.append(time.monotonic())
            self._respond(json.loads(body))
            return
        what = "/".join(self.path.partition("?")[0].removeprefix(TELEMETRIES).split("/")[2:])
        self._respond(self.served.write(f"gputelemetries/{what}".rstrip("/"), json.loads(body), len(body)))

    def do_POST(self) -> None:
        """Serves a creation, such as of an Event."""
        body = self._body()
        self.served.write(self.path.partition("?")[0].rpartition("/")[2], json.loads(body), len(body))
        self._respond(json.loads(body), 201)

    def log_message(self, *_: object) -> None:
        """Writes no log."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _respond(self, document: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _watch(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):  # the agent disconnected
            for event in self.served.events(seconds):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving(folder: Path, server: ApiServer) -> Iterator[Path]:
    """Serves on a free port of 127.0.0.1 with a new certificate; yields the path of a kubeconfig for it."""
    certificate, key = folder / "server.crt", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    command += ["-days", "2", "-subj", "/CN=fake-apiserver", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = type("Handler", (_Handler,), {"served": server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        config = {
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": f"https://127.0.0.1:{http.server_address[1]}",
                        "certificate-authority": str(certificate),
                    },
                }
            ],
            "users": [{"name": "u", "user": {"token": "none"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config), encoding="utf-8")
        try:
            yield path
        finally:
            server.close()
            http.shutdown()
