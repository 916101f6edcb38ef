"""Fakes of what the test bed runs and asks: programs, go, the machine and its progress lines."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event, Lock

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import LOCAL_TOOLS

Answer = tuple[int, str]
"""Exit status and standard output."""


def make_layout(nodes: int = 2) -> Layout:
    """Builds the layout of a cluster in /cache/cluster."""
    return Layout(Path("/cache/cluster"), "gpufleet", IPv4Network("10.244.0.0/16"), nodes)


def make_assets() -> Assets:
    """Builds assets whose binaries are all in /bin."""
    return Assets({name: Path("/bin") / name for tool in LOCAL_TOOLS for name, _ in tool.commands})


@dataclass
class FakeRunner:
    """Replaces `gpufleet_testbed.host.command.run`: the first rule whose words start the command line answers."""

    rules: list[tuple[tuple[str, ...], Answer]] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    environments: list[Mapping[str, str] | None] = field(default_factory=list)
    folders: list[Path | None] = field(default_factory=list)
    inputs: list[str | None] = field(default_factory=list)

    def answer(self, *words: str, status: int = 0, stdout: str = "") -> None:
        """Adds a rule, before those that exist."""
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
class FakeGo:
    """A go command whose binaries are empty files.

    Args:
        fails_for: The tool's folder whose build fails.
        hold: Builds that begin wait for this before they end; None does not wait.
    """

    fails_for: str = ""
    hold: Event | None = None
    built: list[str] = field(default_factory=list)
    """The module folder of each build, in the order in which they ended."""
    running: int = 0
    most_running: int = 0
    stopped: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def run(
        self,
        args: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float | None = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> CompletedProcess[str]:
        """Answers `go version` and `go list`; every tool has four packages."""
        text = "go version go1.26.8 linux/amd64" if args[1] == "version" else "a\nb\nc\nd\n"
        return CompletedProcess(list(args), 0, text, "")

    def follow(
        self,
        args: Sequence[str],
        on_line: Callable[[str], None],
        *,
        stop: Event,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Answers `go build`."""
        assert env is not None
        assert env["CGO_ENABLED"] == "0"
        assert cwd is not None
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            for line in ("go: downloading example.org/a v1", "a", "b"):
                on_line(line)
            while self.hold is not None and not self.hold.wait(0.01):
                if stop.is_set():
                    self.stopped.append(cwd.name)
                    raise ClusterError("stopped")
            if cwd.name == self.fails_for:
                raise ClusterError("does not compile")
            self._write(Path(args[args.index("-o") + 1]), args)
            self.built.append(cwd.name)
        finally:
            with self._lock:
                self.running -= 1

    @staticmethod
    def _write(output: Path, args: Sequence[str]) -> None:
        packages = args[args.index("-o") + 2 :]
        paths = [output / package.rpartition("/")[2] for package in packages] if output.is_dir() else [output]
        for path in paths:
            path.write_bytes(b"binary")


@dataclass
class FakeSystem:
    """A machine without problems, until a test changes it."""

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
class RecordedProgress(Progress):
    """Progress that keeps its lines."""

    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(stream=io.StringIO(), clock=lambda: 0.0)

    def say(self, text: str) -> None:
        self.lines.append(text)
