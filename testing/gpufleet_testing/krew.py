"""Builds the archive and the manifest for krew: `python -m gpufleet_testing.krew WHEEL`.

Without an index: `kubectl krew install --manifest=dist/gpufleet.yaml --archive=dist/kubectl-gpufleet.tar.gz`.
"""

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import Final

import yaml

from gpufleet_api.generate import ROOT

LAUNCHER: Final = ROOT / "cli" / "krew" / "kubectl-gpufleet"
ARCHIVE: Final = "kubectl-gpufleet.tar.gz"
MANIFEST: Final = "gpufleet.yaml"
_DESCRIPTION: Final = """\
Shows the GPUs of a cluster, who holds them and why a GPUWorkload waits; finds what is wrong with an installation; takes
GPUs out of service; and places workloads on the fleet as it is now, without changing it.
"""
_CAVEATS: Final = "Needs uv or pipx, which run the plugin's Python wheel.\n"


def build(wheel: Path, url: str) -> None:
    """Writes the archive and the manifest next to the wheel.

    Args:
        wheel: The wheel.
        url: Where the archive will be published.
    """
    files = [(LAUNCHER.name, LAUNCHER, 0o755), (wheel.name, wheel, 0o644), ("LICENSE", ROOT / "LICENSE", 0o644)]
    archive = wheel.parent / ARCHIVE
    archive.write_bytes(_archive(files))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    version = wheel.name.split("-")[1]
    manifest = wheel.parent / MANIFEST
    manifest.write_text(yaml.safe_dump(_manifest(version, url, digest), sort_keys=False), encoding="utf-8")


def _archive(files: list[tuple[str, Path, int]]) -> bytes:
    """Returns the same bytes for the same files, whenever it is built."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, path, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = path.stat().st_size, mode
            with path.open("rb") as content:
                tar.addfile(info, content)
    return packed.getvalue()


def _manifest(version: str, url: str, digest: str) -> dict[str, object]:
    systems = [{"key": "os", "operator": "In", "values": ["darwin", "linux"]}]
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "gpufleet"},
        "spec": {
            "version": f"v{version}",
            "shortDescription": "GPUs of a cluster, and why workloads wait",
            "description": _DESCRIPTION,
            "caveats": _CAVEATS,
            "platforms": [
                {
                    "selector": {"matchExpressions": systems},
                    "uri": url,
                    "sha256": digest,
                    "bin": LAUNCHER.name,
                }
            ],
        },
    }


def main(arguments: list[str]) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m gpufleet_testing.krew", description="Build the plugin for krew.")
    parser.add_argument("wheel", type=Path, help="wheel of gpufleet")
    parser.add_argument("--url", default=f"https://example.invalid/{ARCHIVE}", help="where the archive is published")
    given = parser.parse_args(arguments)
    build(given.wheel, given.url)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
