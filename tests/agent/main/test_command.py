"""The command as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from gpufleet_agent.devices.recording.player import load

HEAVY = (
    "grpc.",
    "pydantic",
    "kopf",
    "numpy",
    "rich",
    "kubernetes",
    "aiohttp",
    "gpufleet_api.telemetry",
    "gpufleet_operator",
)


def test_the_process_leaves_out_what_it_does_not_need() -> None:
    script = "import sys, gpufleet_agent.main; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    assert "gpufleet_agent.publish.publisher" in modules
    assert [name for name in modules if name.startswith(HEAVY)] == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(folder: Path, port: int, *more: str, **environment: str) -> "subprocess.Popen[str]":
    """The agent on a machine without driver and kubelet, and with an apiserver that is away."""
    plugins = folder / "device-plugins"
    plugins.mkdir(parents=True)
    command = [sys.executable, "-m", "gpufleet_agent.main", "--node-name=node-1", f"--device-plugin-dir={plugins}"]
    command += [f"--pod-resources-socket={folder}/pr.sock", f"--listen=127.0.0.1:{port}", "--state-dir=", *more]
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


def test_process_without_cluster_answers_probes_and_ends_on_sigterm(short_path: Path) -> None:
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
            process.send_signal(signal.SIGTERM)
            rest = [json.loads(line) for line in process.stderr]
            assert process.wait(timeout=30) == 0  # as long as the kubelet waits
        finally:
            process.kill()
    assert "hardware unavailable" in [event["event"] for event in events] or Path("/dev/nvidiactl").exists()
    assert rest[-1]["event"] == "agent stopped"


RECORDINGS = Path(__file__).parents[3] / "examples" / "recordings"


def test_it_plays_a_recording_and_writes_another(short_path: Path) -> None:
    port, copy = free_port(), short_path / "copy.jsonl"
    played = ("--hardware=recorded", f"--recording={RECORDINGS / 'hot.jsonl'}", f"--record={copy}")
    with start(short_path, port, *played, KUBECONFIG=kubeconfig(short_path)) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if json.loads(line)["event"] == "agent started":
                    break
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                page = answer.read().decode()
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
    temperatures = [line for line in page.splitlines() if line.startswith("DCGM_FI_DEV_GPU_TEMP{")]
    assert sorted(line.rpartition(" ")[2] for line in temperatures) == ["33.0", "36.0"]
    assert len(load(copy)._devices) == 2


def test_a_file_that_is_no_recording_is_rejected(short_path: Path) -> None:
    wrong = short_path / "wrong.jsonl"
    wrong.write_text("{}")
    for file, message in ((wrong, "line 1"), (short_path / "absent", "No such file")):
        played = ("--hardware=recorded", f"--recording={file}")
        with start(short_path / f"{file.stem}.d", free_port(), *played, KUBECONFIG=kubeconfig(short_path)) as process:
            _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        (event,) = map(json.loads, err.splitlines())
        assert event["event"] == "agent not started"
        assert message in event["error"]
        assert event["error"].startswith(f"{file}")
        assert "Errno" not in event["error"]


def test_missing_apiserver_configuration_is_an_error(short_path: Path) -> None:
    with start(short_path, free_port(), KUBECONFIG=str(short_path / "absent")) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    (event,) = map(json.loads, err.splitlines())
    assert event["event"] == "agent not started"
    assert event["error"].startswith("no configuration for the apiserver")
