"""Writes `podresources_pb2.py` and its types from `podresources.proto`: `python -m gpufleet_e2e.proof.generate`."""

from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]  # published without types

HERE = Path(__file__).parent
TYPES_HEADER = '# mypy: disable-error-code="type-arg"\n'  # protoc writes a bare Mapping


def generate(out: Path) -> None:
    """Writes the generated package into `out`/gpufleet_e2e/proof. Raises RuntimeError when protoc fails."""
    arguments = [
        "protoc",
        f"-I{HERE.parents[1]}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        "gpufleet_e2e/proof/podresources.proto",
    ]
    if code := protoc.main(arguments):
        raise RuntimeError(f"protoc ended with {code}")
    types = out / "gpufleet_e2e" / "proof" / "podresources_pb2.pyi"
    types.write_text(TYPES_HEADER + types.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    generate(HERE.parents[1])
