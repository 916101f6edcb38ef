"""Builds the tools that the cache lacks while the caller prepares everything else.

One `go build` at a time: it uses every core, and the next one finds in the cache of go what both consist of. Therefore
the go.mod files agree on the versions of shared modules. Modules are downloaded ahead of the build.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from gpufleet_testbed.binaries import go_build
from gpufleet_testbed.errors import ClusterError
from gpufleet_testbed.host.command import Follower, Runner, follow, run
from gpufleet_testbed.host.file_lock import locked
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import Tool


@dataclass
class _Build:
    """How far the build of one tool is."""

    tool: Tool
    folder: Path | None = None
    """Where go writes the binaries."""
    packages: int = 0
    """Packages to compile; 0 until they are downloaded."""
    compiled: int = 0
    done: bool = False

    def __str__(self) -> str:
        name = self.tool.name
        if self.done:
            return f"{name} done"
        if self.folder is None:
            return f"{name} waiting"
        if not self.packages:
            return f"{name} downloading"
        with suppress(FileNotFoundError):  # it is being moved into place
            if linked := sum(path.is_file() for path in self.folder.iterdir()):
                return f"{name} {linked} of {len(self.tool.commands)} linked"
        if not self.compiled:  # go prints a package only when its own cache lacks it
            return f"{name} compiling"
        return f"{name} {100 * self.compiled // self.packages} % compiled"

    def count(self, line: str) -> None:
        """Counts a line of `go build -v`: the import path of a package that is being compiled."""
        self.compiled += " " not in line


class ToolBuilds:
    """The binaries of some tools: from the cache, or built while the context is open.

    Leaving the context waits for the builds; an error inside it stops them.

    Args:
        cache: The cache folder.
        progress: Where builds are shown.
        tools: The tools, in the order of building.
        runner: Runs a program to its end.
        follower: Runs a program and reports its lines.

    Raises:
        HostError: Something has to be built and Go is missing.
    """

    def __init__(
        self,
        cache: Path,
        progress: Progress,
        tools: Sequence[Tool],
        *,
        runner: Runner = run,
        follower: Follower = follow,
    ) -> None:
        self.paths = {name: path for tool in tools for name, path in go_build.binary_paths(tool, cache).items()}
        self._cache = cache
        self._progress = progress
        self._run = runner
        self._follow = follower
        self._tools = {name: tool.name for tool in tools for name, _ in tool.commands}
        self._missing = [tool for tool in tools if not go_build.complete(tool, cache)]
        self._go = go_build.find_go(runner) if self._missing else ""
        self._results: dict[str, Future[None]] = {}
        self._stop = Event()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        if self._missing:
            self._resources.enter_context(locked(self._cache / "tools"))
            # Another process may have built them while this one waited for the lock.
            builds = [_Build(tool) for tool in self._missing if not go_build.complete(tool, self._cache)]
            if builds:
                self._start(builds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._resources:
            try:
                if kind is None:
                    self.wait()
            finally:
                self._stop.set()

    def wait(self, *binaries: str) -> None:
        """Waits until these binaries are built; for all of them when none is named.

        Raises:
            ClusterError: A build failed; the message contains go's output.
        """
        tools = {self._tools[name] for name in binaries} or set(self._results)
        for name, result in self._results.items():
            if name in tools:
                result.result()

    def _start(self, builds: Sequence[_Build]) -> None:
        count = sum(len(build.tool.commands) for build in builds)
        self._progress.say(f"Building {count} binaries with {self._go}; all 12 take about 8 minutes on 2 cores, once")
        env = go_build.build_environment(go_build.go_version(self._run([self._go, "version"]).stdout), os.environ)
        shown = self._resources.enter_context(ThreadPoolExecutor(1))
        downloads, pool = (self._resources.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        # Run first when the context is left: what has not begun is dropped.
        for executor in (downloads, pool):
            self._resources.callback(executor.shutdown, wait=False, cancel_futures=True)
        listed = {build.tool.name: downloads.submit(self._count_packages, build.tool, env) for build in builds}
        self._results = {b.tool.name: pool.submit(self._build, b, listed[b.tool.name], env) for b in builds}
        shown.submit(self._show, builds)

    def _show(self, builds: Sequence[_Build]) -> None:
        names = ", ".join(build.tool.name for build in builds)
        with (
            suppress(ClusterError, CancelledError),
            self._progress.step(lambda: f"building: {', '.join(map(str, builds))}", done=f"built {names}"),
        ):
            for build in builds:
                self._results[build.tool.name].result()

    def _count_packages(self, tool: Tool, env: dict[str, str]) -> int:
        """Counts the packages that the binaries of a tool consist of; downloads their modules."""
        listed = self._run(
            go_build.list_command(self._go, tool), timeout=None, env=env, cwd=go_build.MODULES / tool.folder
        )
        return len(listed.stdout.split())

    def _build(self, build: _Build, packages: Future[int], env: dict[str, str]) -> None:
        tool, folder = build.tool, go_build.MODULES / build.tool.folder
        with tempfile.TemporaryDirectory(dir=self._cache / "tools", prefix=f".{tool.name}-") as scratch:
            staging = Path(scratch) / tool.name
            staging.mkdir()
            build.folder = staging
            build.packages = packages.result()
            command = go_build.build_command(self._go, tool, staging)
            self._follow(command, build.count, stop=self._stop, env=env, cwd=folder)
            # The binaries of a tool move into place together: a folder that exists is complete.
            target = go_build.tool_dir(tool, self._cache)
            shutil.rmtree(target, ignore_errors=True)
            build.done = True
            staging.rename(target)
