"""Prometheus' own linter for series: `promtool check metrics`, of Debian's package prometheus.

The package is downloaded once and only this program of it is unpacked, into the cache of the test bed: nothing is
installed. The Go module would be an alternative, but builds for minutes, because it contains every cloud's client.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from gpufleet_testbed import cache_dir

_PROGRAM = "./usr/bin/promtool"


def promtool() -> Path:
    """Returns the path of promtool: of the machine if it is installed, else of the cache."""
    installed = shutil.which("promtool")
    if installed is not None:
        return Path(installed)
    cached = cache_dir() / "tools" / "promtool"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            # Complete, or absent: two workers may do this at the same time.
            _unpack(_download(Path(folder)), Path(folder)).replace(cached)
    return cached


def check_metrics(page: str) -> list[str]:
    """Returns promtool's findings on a page of series, one line each; empty: there are none.

    Raises:
        AssertionError: The page is not in Prometheus' text format.
    """
    done = subprocess.run([promtool(), "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    # 3: the linter has findings. 1: the page cannot be parsed.
    assert done.returncode in (0, 3), f"promtool ended with {done.returncode}: {done.stderr}"
    return [line for line in (done.stdout + done.stderr).splitlines() if line]


def _download(folder: Path) -> Path:
    command = ["apt-get", "download", "--option=APT::Sandbox::User=root", "prometheus"]
    got = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if got.returncode != 0:
        # Package lists may be missing in fresh containers, or be older than the mirror.
        subprocess.run(["apt-get", "update"], check=True, capture_output=True, timeout=600)
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    (package,) = folder.glob("*.deb")
    return package


def _unpack(package: Path, folder: Path) -> Path:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as source:
        subprocess.run(["tar", "--extract", "--directory", folder, _PROGRAM], stdin=source.stdout, check=True)
    return folder / _PROGRAM
