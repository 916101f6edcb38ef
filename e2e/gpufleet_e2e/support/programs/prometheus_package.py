"""The programs of Debian's package prometheus, which is downloaded once and not installed.

Each program is unpacked into the cache of the test bed. The Go module would be an alternative, but builds for minutes,
because it contains every cloud's client.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from gpufleet_e2e.support.programs.debian_packages import download
from gpufleet_testbed import cache_dir


def program(name: str) -> Path:
    """Returns the path of `promtool` or `prometheus`: of the machine if it is installed, else of the cache."""
    installed = shutil.which(name)
    if installed is not None:
        return Path(installed)
    cached = cache_dir() / "tools" / name
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            # Complete, or absent: two workers may do this at the same time.
            (package,) = download(Path(folder), "prometheus")
            _unpack(package, f"./usr/bin/{name}", Path(folder)).replace(cached)
    return cached


def _unpack(package: Path, path: str, folder: Path) -> Path:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as source:
        subprocess.run(["tar", "--extract", "--directory", folder, path], stdin=source.stdout, check=True)
    return folder / path
