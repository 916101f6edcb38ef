import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("said", "removed"), [(b"", True), (b"d", False)])
def test_the_cluster_is_removed_when_its_caller_ends_without_detaching(
    said: bytes, removed: bool, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    keeper = [sys.executable, "-m", "gpufleet_testbed.kind.monitor", "touch", str(mark)]
    assert subprocess.run(keeper, input=said, check=False).returncode == 0
    assert mark.exists() is removed
