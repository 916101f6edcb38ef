"""The command as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HEAVY = ("pydantic", "kopf", "numpy", "rich", "kubernetes", "aiohttp", "gpufleet_api.telemetry", "gpufleet_operator")


def test_the_process_leaves_out_what_it_does_not_need() -> None:
    script = "import sys, gpufleet_agent.main; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    assert "gpufleet_agent.publish.publisher" in modules
    assert [name for name in modules if name.startswith(HEAVY)] == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, port: int, **environment: str) -> "subprocess.Popen[str]":
    """The agent on a machine without driver and kubelet, and with an apiserver that is away."""
    plugins = folder / "device-plugins"
    plugins.mkdir()
    command = [sys.executable, "-m", "gpufleet_agent.main", "--node-name=node-1", f"--device-plugin-dir={plugins}"]
    command += [f"--pod-resources-socket={folder}/pr.sock", f"--listen=127.0.0.1:{port}"]
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG"}}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**inherited, "HOME": str(folder), **environment}
    )


def kubeconfig(folder: Path) -> str:
    path = folder / "kubeconfig"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return str(path)


def test_with_everything_away_it_stays_calm_answers_its_probes_and_ends_on_sigterm(short_path: Path) -> None:
    port = free_port()
    with start(short_path, port, KUBECONFIG=kubeconfig(short_path)) as process:
        assert process.stderr is not None
        try:
            events = []
            for line in process.stderr:
                events.append(json.loads(line))
                if events[-1]["event"] == "agent started":
                    break
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                assert answer.read() == b"loops: ok\n"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            rest = [json.loads(line) for line in process.stderr]
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - began < 5
        finally:
            process.kill()
    assert "hardware unavailable" in [event["event"] for event in events] or Path("/dev/nvidiactl").exists()
    assert rest[-1]["event"] == "agent stopped"


def test_without_a_configuration_for_the_apiserver_it_says_so_and_fails(short_path: Path) -> None:
    with start(short_path, free_port(), KUBECONFIG=str(short_path / "absent")) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    (event,) = map(json.loads, err.splitlines())
    assert event["event"] == "agent not started"
    assert event["error"].startswith("no configuration for the apiserver")
