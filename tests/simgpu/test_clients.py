import shutil
import subprocess
import sys
from pathlib import Path

from gpufleet_simgpu.clients import open_clients
from gpufleet_simgpu.files import STATE, write_state
from gpufleet_simgpu.presets import make_node

SCRIPT = """
import sys, pynvml
pynvml.nvmlInit(); pynvml.nvmlInit()
for line in sys.stdin:
    pynvml.nvmlShutdown()
    print(flush=True)
"""


def test_process_is_a_client_until_its_last_shutdown(simulated_library: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated_library.parent, tmp_path, dirs_exist_ok=True)
    write_state(tmp_path / STATE, make_node("t4", 1))
    assert open_clients(tmp_path) == ()
    with subprocess.Popen(
        [sys.executable, "-c", f"{SCRIPT}"],
        env={"LD_LIBRARY_PATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = []
        for _ in range(2):
            process.stdin.write("shutdown\n")
            process.stdin.flush()
            process.stdout.readline()
            seen.append(open_clients(tmp_path))
        process.stdin.close()
    assert seen == [(process.pid,), ()]
