import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("said", "removed"), [(b"", True), (b"d", False)])
def test_cluster_is_removed_unless_the_caller_detaches(said: bytes, removed: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    monitor = [sys.executable, "-m", "gpufleet_testbed.kind.monitor", "touch", str(mark)]
    assert subprocess.run(monitor, input=said, check=False).returncode == 0
    assert mark.exists() is removed
