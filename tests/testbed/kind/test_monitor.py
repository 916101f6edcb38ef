import subprocess
from pathlib import Path

import pytest

from gpufleet_testbed.kind import monitor


@pytest.mark.parametrize(("said", "removed"), [(b"", True), (b"d", False)])
def test_cluster_is_removed_unless_the_caller_detaches(said: bytes, removed: bool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    done = subprocess.run(monitor.command(["touch", str(mark)]), input=said, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert mark.exists() is removed
