"""A folder of object files, the examples, and the command line without the terminal's width."""

from pathlib import Path

import pytest

from gpufleet_api.generate import ROOT
from gpufleet_testing.cli.clusters import RecordedCluster
from gpufleet_testing.cli.files import ObjectFiles


@pytest.fixture
def files(tmp_path: Path) -> ObjectFiles:
    return ObjectFiles(tmp_path)


@pytest.fixture
def examples() -> Path:
    return ROOT / "examples"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedCluster:
    folder = tmp_path / "cluster"
    folder.mkdir()
    return RecordedCluster(folder, monkeypatch)


@pytest.fixture(autouse=True)
def no_cluster_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/dev/null")


@pytest.fixture(autouse=True)
def no_terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
