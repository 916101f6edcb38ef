import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.progress import Progress

Answer = tuple[int, str]


@dataclass
class FakeRunner:
    """Stands for `gpufleet_testbed.host.command.run`: answers by the first rule whose words start the command line."""

    rules: list[tuple[tuple[str, ...], Answer]] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    environments: list[Mapping[str, str] | None] = field(default_factory=list)
    folders: list[Path | None] = field(default_factory=list)
    inputs: list[str | None] = field(default_factory=list)

    def answer(self, *words: str, status: int = 0, stdout: str = "") -> None:
        self.rules.insert(0, (words, (status, stdout)))

    def __call__(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float | None = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess[str]:
        self.calls.append(list(args))
        self.environments.append(env)
        self.folders.append(cwd)
        self.inputs.append(stdin)
        matching = (answer for words, answer in self.rules if tuple(args[: len(words)]) == words)
        status, stdout = next(matching, (0, ""))
        if check and status != 0:
            raise ClusterError(f"exit status {status}: {' '.join(args)}")
        return CompletedProcess(list(args), status, stdout, "")


@dataclass
class FakeSystem:
    """A machine on which everything is as it should be, until a test changes it."""

    root: bool = True
    name: str = "Linux"
    machine: str = "x86_64"
    programs_missing: set[str] = field(default_factory=set)
    paths_missing: set[Path] = field(default_factory=set)
    files: dict[Path, str] = field(default_factory=dict)
    free: int = 100 << 30
    results: list[tuple[str, Answer]] = field(default_factory=list)
    """Parts of a command line and what it then answers; the first match counts."""
    ran: list[str] = field(default_factory=list)

    def is_root(self) -> bool:
        return self.root

    def kernel(self) -> tuple[str, str]:
        return self.name, self.machine

    def which(self, program: str) -> bool:
        return program not in self.programs_missing

    def exists(self, path: Path) -> bool:
        return path not in self.paths_missing

    def read(self, path: Path) -> str:
        return self.files.get(path, "")

    def free_bytes(self, folder: Path) -> int:
        return self.free

    def run(self, args: Sequence[str]) -> CompletedProcess[str]:
        line = " ".join(args)
        self.ran.append(line)
        for part, (status, stdout) in self.results:
            if part in line:
                return CompletedProcess(list(args), status, stdout, "")
        return CompletedProcess(list(args), 0, "", "")


@dataclass
class Shown(Progress):
    """Progress that keeps what it was told."""

    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(stream=io.StringIO(), clock=lambda: 0.0)

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def system() -> FakeSystem:
    return FakeSystem()


@pytest.fixture
def progress() -> Shown:
    return Shown()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes an executable shell script."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write
