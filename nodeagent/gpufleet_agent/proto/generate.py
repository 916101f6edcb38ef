"""Generates the message modules: `python -m gpufleet_agent.proto.generate` (`make proto`).

Needs grpcio-tools, a development dependency. Only messages and their type stubs are generated; the few services are
written by hand, with types (`deviceplugin.py`, `dra.py`, `podresources.py`).
"""

import sys
from importlib import resources
from pathlib import Path

PROTOS = ("deviceplugin", "dra", "dra_health", "plugin_registration", "podresources")
FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent


def generate(out: Path) -> list[Path]:
    """Writes the modules of all .proto files below `out`; returns the files' paths relative to it.

    Raises:
        RuntimeError: protoc rejected a file and wrote the reason to stderr.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415 - untyped; absent where agents run

    written = []
    for name in PROTOS:
        relative = (FOLDER / name).relative_to(ROOT)
        arguments = [f"-I{ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}"]
        arguments += [f"--python_out={out}", f"--pyi_out={out}", f"{relative}.proto"]
        if protoc.main(["protoc", *arguments]) != 0:
            raise RuntimeError(f"protoc rejected {relative}.proto")
        stub = Path(f"{relative}_pb2.pyi")
        # protoc writes a bare Mapping, which mypy --strict rejects.
        (out / stub).write_text(f'# mypy: disable-error-code="type-arg"\n{(out / stub).read_text()}')
        written += [Path(f"{relative}_pb2.py"), stub]
    return written


if __name__ == "__main__":
    for path in generate(ROOT):
        sys.stdout.write(f"wrote {ROOT / path}\n")
