"""The installed command as a process: signals, pipes, help, and what it doesn't import."""

import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from gpufleet_testing.cli.runner import run_cli

COMMAND = [str(Path(sys.executable).with_name("gpufleet"))]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=50, **options)


def test_the_readmes_command_places_the_gang(examples: Path) -> None:
    done = run("simulate", "-f", "examples/gang.yaml", "--fleet", "examples/fleets/mixed.yaml", cwd=examples.parent)
    assert done.returncode == 0
    assert done.stdout.startswith("default/gang: placed: 2/2 replicas, 4 GPUs on node-1, node-2 (Best, gang)\n")


def test_exit_codes_of_the_process(examples: Path) -> None:
    fleet = examples / "fleets" / "mixed.yaml"
    assert run("simulate", "-f", examples / "impossible.yaml", "--fleet", fleet).returncode == 1
    bad = run("simulate", "-f", fleet, "--fleet", fleet)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == f"error: {fleet}: no GPUWorkload found\n"


def test_a_reader_that_leaves_is_no_error(examples: Path) -> None:
    fleet = examples / "fleets" / "mixed.yaml"
    process = subprocess.Popen(
        [*COMMAND, "rank", "--fleet", str(fleet)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate(timeout=50)
    assert "Traceback" not in error
    assert "Broken" not in error
    assert process.returncode == -signal.SIGPIPE


def test_ctrl_c_ends_it_with_130_and_without_a_word(tmp_path: Path) -> None:
    fifo = tmp_path / "fleet.yaml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*COMMAND, "rank", "--fleet", str(fifo)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        with fifo.open("w"):  # opens when the command opens it for reading, and then has nothing to say
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=50)
    finally:
        process.kill()
    assert (process.returncode, out, error.strip()) == (130, "", "")


def test_ctrl_c_during_the_imports_is_as_clean() -> None:
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


@pytest.mark.parametrize("command", ["simulate", "rank", "explain", "distribute"])
def test_help_says_what_it_does_with_an_example(command: str) -> None:
    done = run_cli(command, "--help")
    assert done.code == 0
    assert f"gpufleet {command} -" in done.out
    assert "Example" in done.out
    assert "--fleet" in done.out


def test_help_lists_the_commands_and_exit_codes() -> None:
    done = run_cli("-h")
    assert done.code == 0
    for text in ("simulate", "rank", "explain", "distribute", "version", "Exit codes"):
        assert text in done.out


def test_version() -> None:
    assert run_cli("version").out == f"gpufleet {version('gpufleet')}\n"


def test_wrong_usage_exits_with_2() -> None:
    for arguments in ([], ["nonsense"], ["simulate"], ["rank", "--fleet", "x", "-o", "xml"], ["rank", "--flet", "x"]):
        done = run_cli(*arguments)
        assert (done.code, "Traceback" in done.err) == (2, False)


def imported(code: str) -> set[str]:
    script = f"import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    return set(done.stdout.split())


def test_help_imports_nothing_that_is_slow() -> None:
    names = imported("import gpufleet_cli.main, gpufleet_cli.app")
    assert "typer" in names
    assert not names & {"numpy", "pydantic", "yaml", "kubernetes", "gpufleet_operator"}


def test_the_commands_need_no_package_beyond_the_cli_extra() -> None:
    names = imported(
        "import gpufleet_cli.main, gpufleet_cli.app, gpufleet_cli.commands.simulate, gpufleet_cli.commands.devices"
    )
    assert {"numpy", "pydantic", "yaml", "gpufleet_operator"} <= names
    assert not names & {"kopf", "lightkube", "grpc", "pynvml", "prometheus_client"}
