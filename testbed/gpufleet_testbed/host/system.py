"""Access to this machine for preflight checks; tests pass a fake."""

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

from gpufleet_testbed.host.command import run, search_path


class System(Protocol):
    """Facts of the machine."""

    def is_root(self) -> bool:
        """Returns whether this process has root privileges."""

    def kernel(self) -> tuple[str, str]:
        """Returns operating system and machine, like ("Linux", "x86_64")."""

    def which(self, program: str) -> bool:
        """Returns whether a program is installed."""

    def exists(self, path: Path) -> bool:
        """Returns whether the path exists."""

    def read(self, path: Path) -> str:
        """Reads a file; empty when it cannot be read."""

    def free_bytes(self, folder: Path) -> int:
        """Returns the free space of a folder's file system; the folder may be missing."""

    def run(self, args: Sequence[str]) -> CompletedProcess[str]:
        """Runs a program to its end; a failure is only its exit status."""


class Host:
    """The real machine."""

    def is_root(self) -> bool:
        return os.geteuid() == 0

    def kernel(self) -> tuple[str, str]:
        return platform.system(), platform.machine()

    def which(self, program: str) -> bool:
        return shutil.which(program, path=search_path()) is not None

    def exists(self, path: Path) -> bool:
        return path.exists()

    def read(self, path: Path) -> str:
        try:
            return path.read_text()
        except OSError:
            return ""

    def free_bytes(self, folder: Path) -> int:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free

    def run(self, args: Sequence[str]) -> CompletedProcess[str]:
        return run(args, check=False, timeout=120)
