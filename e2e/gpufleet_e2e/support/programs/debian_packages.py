"""Debian packages that are downloaded and not installed."""

from pathlib import Path

from gpufleet_testbed.host.packages import apt_get


def download(folder: Path, *names: str) -> list[Path]:
    """Downloads packages into an empty folder and returns their files.

    Raises:
        ClusterError: A package cannot be downloaded.
    """
    apt_get("download", "--option=APT::Sandbox::User=root", *names, cwd=folder)
    return sorted(folder.glob("*.deb"))
