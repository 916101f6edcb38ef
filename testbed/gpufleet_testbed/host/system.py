"""This machine, as the preflight checks see it; tests put a fake in its place."""

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

from gpufleet_testbed.host.command import run, search_path


class System(Protocol):
    """What the checks ask."""

    def is_root(self) -> bool:
        """True when this process may do everything."""

    def kernel(self) -> tuple[str, str]:
        """Operating system and machine, like ("Linux", "x86_64")."""

    def which(self, program: str) -> bool:
        """True when a program is installed."""

    def exists(self, path: Path) -> bool:
        """True when the path exists."""

    def read(self, path: Path) -> str:
        """Text of a file; empty when it can't be read."""

    def free_bytes(self, folder: Path) -> int:
        """Free space of the file system that holds a folder, which need not exist yet."""

    def run(self, args: Sequence[str]) -> CompletedProcess[str]:
        """Run a program to its end; a failure is only its exit status."""


class Host:
    """The real thing."""

    def is_root(self) -> bool:
        """See `System`."""
        return os.geteuid() == 0

    def kernel(self) -> tuple[str, str]:
        """See `System`."""
        return platform.system(), platform.machine()

    def which(self, program: str) -> bool:
        """See `System`."""
        return shutil.which(program, path=search_path()) is not None

    def exists(self, path: Path) -> bool:
        """See `System`."""
        return path.exists()

    def read(self, path: Path) -> str:
        """See `System`."""
        try:
            return path.read_text()
        except OSError:
            return ""

    def free_bytes(self, folder: Path) -> int:
        """See `System`."""
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free

    def run(self, args: Sequence[str]) -> CompletedProcess[str]:
        """See `System`."""
        return run(args, check=False, timeout=120)
