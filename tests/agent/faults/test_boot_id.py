from pathlib import Path

from gpufleet_agent.faults.boot_id import read_boot_id


def test_the_boot_is_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("0b5c7a8e-0a6f\n", encoding="ascii")
    assert read_boot_id(tmp_path / "boot_id") == "0b5c7a8e-0a6f"
    assert read_boot_id(tmp_path / "none") is None
