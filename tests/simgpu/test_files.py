import shutil
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gpufleet_simgpu.__main__ import app
from gpufleet_simgpu.build import LIBRARY, CompilerError, build_library
from gpufleet_simgpu.files import STATE, edit, read_state, write_state
from gpufleet_simgpu.model import NOT_AVAILABLE, SimProcess
from gpufleet_simgpu.presets import make_node
from gpufleet_simgpu.text import StateFormatError

CLI = CliRunner()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_concurrent_edits_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / STATE
    write_state(path, make_node("l4", 1))
    threads = [
        threading.Thread(target=lambda: [edit(path, lambda node: node.with_xid(0, 13)) for _ in range(10)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [xid.sequence for xid in read_state(path).xids] == list(range(1, 41))
    assert files(tmp_path) == [STATE]


def test_failed_write_keeps_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / STATE
    write_state(path, make_node("l4", 1))
    with pytest.raises(StateFormatError):
        edit(path, lambda node: node.with_gpu(0, name=""))
    assert read_state(path) == make_node("l4", 1)
    assert files(tmp_path) == [STATE]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / STATE
    path.write_text("gpu zero\n")
    with pytest.raises(StateFormatError, match=rf"{path}: line 1"):
        read_state(path)


def test_missing_compiler_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CompilerError, match=r"need gcc .*apt-get install gcc"):
        build_library(tmp_path / "driver")
    monkeypatch.setenv("CC", "clang-99 -m64")
    with pytest.raises(CompilerError, match="`clang-99`"):
        build_library(tmp_path / "driver")


def test_failing_compiler_is_quoted_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rejecting = shutil.which("false")
    assert rejecting is not None
    monkeypatch.setenv("CC", rejecting)
    with pytest.raises(CompilerError, match="failed with 1"):
        build_library(tmp_path)
    assert files(tmp_path) == []


def run(folder: Path, *words: str) -> str:
    result = CLI.invoke(app, [words[0], str(folder), *words[1:]], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return result.output


def test_command_line_changes_the_file(tmp_path: Path) -> None:
    write_state(tmp_path / STATE, make_node("h100", 2))
    run(tmp_path, "set", "1", "temperature_celsius=91", "power_milliwatts=none", "memory_used_mib=na")
    run(tmp_path, "processes", "0", "4711:5000", "12:3:G")
    run(tmp_path, "xid", "0", "79")
    run(tmp_path, "lose", "0")
    run(tmp_path, "delay", "1", "50", "--field", "name")
    run(tmp_path, "driver", "9")
    (tmp_path / "course.txt").write_text("0 utilization_percent=5\n")
    run(tmp_path, "play", "1", "course.txt", "--no-loop")

    node = read_state(tmp_path / STATE)

    first, second = node.gpus
    assert (second.temperature_celsius, second.power_milliwatts, second.memory_used_mib) == (91, None, NOT_AVAILABLE)
    assert first.processes == (SimProcess(4711, 5000), SimProcess(12, 3, "G"))
    assert (first.lost, second.delay, node.error) == (True, {"name": 50}, 9)
    assert [(xid.gpu, xid.code) for xid in node.xids] == [(0, 79)]
    assert second.series is not None
    assert (second.series.path, second.series.loop) == ("course.txt", False)

    shown = run(tmp_path, "show")
    assert "every call fails with 9" in shown
    assert "lost" in shown
    assert "NVIDIA H100 80GB HBM3" in shown
    assert "91" in shown

    run(tmp_path, "restore", "0")
    run(tmp_path, "play", "1", "none")
    node = read_state(tmp_path / STATE)
    assert not node.gpus[0].lost
    assert node.gpus[1].series is None


def test_init_builds_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(folder: Path) -> Path:
        library = folder / LIBRARY
        library.touch()
        return library

    monkeypatch.setattr("gpufleet_simgpu.__main__.build_library", build)  # `simulated_library` compiles it for real
    output = run(tmp_path, "init", "--gpus", "3", "--model", "a100", "--node", "node-1")
    assert files(tmp_path) == [STATE, LIBRARY]
    assert read_state(tmp_path / STATE) == make_node("a100", 3, node="node-1")
    assert "3 x NVIDIA A100-SXM4-80GB" in output


@pytest.mark.parametrize(
    "words", [("set", "0", "color=red"), ("set", "0", "minor"), ("processes", "0", "1"), ("play", "0", "nowhere.txt")]
)
def test_command_line_rejects_unknown_words(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_state(tmp_path / STATE, make_node("h100", 1))
    result = CLI.invoke(app, [words[0], str(tmp_path), *words[1:]])
    assert result.exit_code != 0
    assert read_state(tmp_path / STATE) == make_node("h100", 1)
