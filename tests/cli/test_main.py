"""The installed command: signals, pipes and imports in a process of its own; usage, help and exit codes in this one."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import pytest

from gpufleet_cli.cluster import kinds
from gpufleet_testing.cli.clusters import RecordedCluster, live_telemetry
from gpufleet_testing.cli.commands import ALL
from gpufleet_testing.cli.files import gpu
from gpufleet_testing.cli.runner import run_cli

COMMAND = [str(Path(sys.executable).with_name("gpufleet"))]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_readme_command_places_the_gang(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(examples.parent)
    done = run_cli("simulate", "-f", "examples/gang.yaml", "--from", "examples/fleets/mixed.yaml")
    assert done.code == 0
    assert done.out.startswith("default/gang: placed: 2/2 replicas, 4 GPUs on node-1, node-2 (Best, gang)\n")


def test_exit_code_is_1_when_a_workload_is_not_placed(examples: Path) -> None:
    fleet = examples / "fleets" / "mixed.yaml"
    assert run_cli("simulate", "-f", examples / "impossible.yaml", "--from", fleet).code == 1


def test_process_exits_with_2_and_one_line_for_bad_input(examples: Path) -> None:
    fleet = examples / "fleets" / "mixed.yaml"
    process = start("simulate", "-f", fleet, "--from", fleet)
    out, error = process.communicate(timeout=50)
    assert (process.returncode, out) == (2, "")
    assert error == f"error: {fleet}: no GPUWorkload found (skipped: GPUTelemetry node-1, GPUTelemetry node-2)\n"


@pytest.mark.parametrize(
    "arguments", [["-h"], ["version", "--client"], ["summary", "--from", "mixed.yaml", "-o", "json"]]
)
def test_full_disk_is_an_error_without_a_traceback(arguments: list[str], examples: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=examples / "fleets",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=50,
        )
    assert (done.returncode, done.stderr) == (2, "error: stdout: No space left on device\n")


def test_closed_stdout_is_an_error() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" version --client >&-', *COMMAND], stderr=subprocess.PIPE, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (2, "error: stdout: Bad file descriptor\n")


def test_closed_pipe_is_not_an_error(examples: Path) -> None:
    process = start("rank", "--from", examples / "fleets" / "mixed.yaml")
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=50)
    assert "Traceback" not in error
    assert "Broken" not in error
    assert process.returncode == -signal.SIGPIPE


def unread(pipe: TextIO) -> int:
    """Returns the number of bytes that its reader has not read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def is_asleep(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].startswith("S")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_interrupt_exits_with_130_and_no_output(tmp_path: Path) -> None:
    fifo = tmp_path / "fleet.yaml"
    os.mkfifo(fifo)
    process = start("rank", "--from", fifo)
    try:
        with fifo.open("w") as file:  # returns when the command opens it for reading
            file.write("# the rest follows")
            file.flush()
            # A signal between two reads would not end the next one.
            until(lambda: unread(file) == 0 and is_asleep(process))
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=50)
    finally:
        process.kill()
    assert (process.returncode, out, error.strip()) == (130, "", "")


def test_interrupt_during_the_imports_exits_with_130() -> None:
    script = (
        "import sys, gpufleet_cli.main as m\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'gpufleet_cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "m.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("command", ALL)
def test_help_of_a_command_has_an_example(command: str) -> None:
    done = run_cli(*command.split(), "--help")
    assert done.code == 0
    assert f"Example: gpufleet {command}" in done.out


def test_help_lists_the_commands_and_exit_codes() -> None:
    done = run_cli("-h")
    assert done.code == 0
    for text in (*ALL, "Exit codes"):
        assert text.split()[0] in done.out


def test_version_without_cluster_is_that_of_the_program() -> None:
    for arguments in (["version"], ["--version"]):
        done = run_cli(*arguments)
        assert (done.code, done.out) == (0, f"gpufleet {version('gpufleet')}\n")
        assert done.notes[0].startswith("versions of the cluster not read: no cluster responds: ")
    only = run_cli("version", "--client")
    assert (only.code, only.out, only.err) == (0, f"gpufleet {version('gpufleet')}\n", "")


def test_wrong_usage_exits_with_2() -> None:
    for arguments in ([], ["nonsense"], ["simulate"], ["rank", "--from", "x", "-o", "xml"], ["rank", "--flet", "x"]):
        done = run_cli(*arguments)
        assert (done.code, "Traceback" in done.err) == (2, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "--from", "x", "-o", "xml"], "--output xml: must be one of table, wide, json, yaml, name"),
        (["simulate"], "missing option '--filename' / '-f'\nTry 'gpufleet simulate --help'."),
        (
            ["summary", "--flet", "x"],
            "no such option: --flet\nTry 'gpufleet summary --help'.",
        ),
        (["nonsense"], "no such command 'nonsense'\nTry 'gpufleet --help'."),
        (["--nonsense"], "no such option: --nonsense\nTry 'gpufleet --help'."),
    ],
)
def test_wrong_option_is_an_error_like_wrong_input(arguments: list[str], message: str) -> None:
    done = run_cli(*arguments)
    assert (done.code, done.out, done.err) == (2, "", f"error: {message}\n")


def test_help_shows_no_types_of_flags_and_one_example_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    for arguments in (["--help"], ["distribute", "--help"]):
        assert "<" not in run_cli(*arguments).out
    examples = [line for line in run_cli("distribute", "--help").out.splitlines() if "Example: gpufleet" in line]
    assert len(examples) == 2


def test_imports_are_few_for_help_and_within_the_cli_extra_for_commands() -> None:
    commands = ", ".join(f"gpufleet_cli.commands.{name}" for name in ("simulate", "replay", "devices", "distribute"))
    script = (
        "import sys\n"
        "def packages(): print(*{name.partition('.')[0] for name in sys.modules})\n"
        "import gpufleet_cli.main, gpufleet_cli.app; packages()\n"
        f"import {commands}; packages()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    for_help, for_commands = (set(line.split()) for line in done.stdout.splitlines())
    assert "typer" in for_help
    assert not for_help & {"numpy", "pydantic", "yaml", "kubernetes", "gpufleet_operator"}
    assert {"numpy", "pydantic", "yaml", "gpufleet_operator"} <= for_commands
    assert not for_commands & {"kopf", "lightkube", "grpclib", "pynvml", "prometheus_client"}


def test_table_of_a_cluster_needs_neither_pydantic_nor_yaml(cluster: RecordedCluster) -> None:
    cluster.put(kinds.TELEMETRY, live_telemetry("node-1", gpu("node-1", 0), observed="2026-01-01T00:00:00Z"))
    script = (
        "import sys\n"
        "from gpufleet_cli.app import app\n"
        "try: app(['top', 'node-1', '-n', 'team', '-o', 'wide'])\n"
        "finally: print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    imported = set(done.stdout.splitlines()[-1].split())
    assert done.returncode == 0, done.stderr
    assert "rich" in imported
    assert not imported & {"numpy", "pydantic", "yaml"}
