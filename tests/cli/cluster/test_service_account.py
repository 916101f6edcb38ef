"""In a pod without kubectl, the commands that read use the pod's ServiceAccount."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gpufleet_testing.cli.clusters import live_telemetry
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

TELEMETRY = "/apis/gpufleet.dev/v1alpha1/gputelemetries"
FORBIDDEN = 'gputelemetries.gpufleet.dev is forbidden: User "system:serviceaccount:ml:default" cannot list resource'


@dataclass
class Apiserver:
    """Responses by path, and the requests so far: path and headers."""

    port: int = 0
    responses: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


def handler(server: Apiserver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, dict(self.headers)))
            code, text = server.responses.get(self.path, (404, "404 page not found"))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - a name of http.server
            pass

    return Handler


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = folder / "key", folder / "ca.crt"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def apiserver(certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apiserver]:
    """An apiserver, and the environment of a pod that has no kubectl."""
    found = Apiserver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_port
    account = tmp_path / "account"
    account.mkdir()
    for name, text in (("token", "secret\n"), ("namespace", "ml"), ("ca.crt", certificate[0].read_text())):
        (account / name).write_text(text)
    monkeypatch.setattr("gpufleet_cli.cluster.service_account.FOLDER", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(found.port))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def respond(server: Apiserver, path: str, *items: object) -> None:
    server.responses[path] = (200, json.dumps({"items": list(items)}))


def test_lists_are_read_with_the_token_of_the_pod(apiserver: Apiserver) -> None:
    observed = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    respond(apiserver, TELEMETRY, live_telemetry("node-1", gpu("node-1", 0), observed=observed))
    assert run_cli("top", "-o", "name").out == "GPU-node-1-0\n"
    ((path, headers),) = apiserver.requests
    assert (path, headers["Authorization"]) == (TELEMETRY, "Bearer secret")
    assert "Impersonate-User" not in headers
    run_cli("top", "--as", "dev", "--as-group", "team")
    headers = apiserver.requests[-1][1]
    assert (headers["Impersonate-User"], headers["Impersonate-Group"]) == ("dev", "team")


def test_default_namespace_is_that_of_the_pod(apiserver: Apiserver) -> None:
    respond(apiserver, "/apis/gpufleet.dev/v1alpha1/namespaces/ml/gpuworkloads")
    done = run_cli("status")
    assert (done.code, done.notes[-1]) == (0, "no GPUWorkload found in namespace ml: see -A")


def test_kind_that_does_not_exist_reads_as_with_kubectl(apiserver: Apiserver) -> None:
    assert apiserver.responses == {}
    assert "the CustomResourceDefinitions of gpufleet.dev are not installed" in run_cli("top").err


def test_missing_permission_reads_as_with_kubectl(apiserver: Apiserver) -> None:
    apiserver.responses[TELEMETRY] = (403, json.dumps({"reason": "Forbidden", "message": FORBIDDEN}))
    done = run_cli("top")
    assert (done.code, done.err) == (
        2,
        f"error: {FORBIDDEN}: ask an administrator of the cluster for this permission\n",
    )


def test_apiserver_that_does_not_answer_is_an_error(apiserver: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    done = run_cli("top")
    assert (done.code, apiserver.requests) == (2, [])
    assert done.err.startswith("error: no cluster responds: 127.0.0.1:1, the apiserver of this pod: ")


@pytest.mark.parametrize("words", [["suspend", "train"], ["top", "--context", "other"]])
def test_what_needs_kubectl_says_so(apiserver: Apiserver, words: list[str]) -> None:
    live = {"metadata": {"name": "train", "namespace": "ml"}, "spec": {}}
    respond(apiserver, "/apis/gpufleet.dev/v1alpha1/namespaces/ml/gpuworkloads", live)
    done = run_cli(*words)
    assert done.code == 2
    assert "error: kubectl is not in PATH: without it, gpufleet reads the cluster of this pod" in done.err


def test_kubeconfig_of_the_environment_is_not_ignored(apiserver: Apiserver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    done = run_cli("top")
    assert (done.code, apiserver.requests) == (2, [])
    assert "kubectl is not in PATH" in done.err
