"""Reproducible OCI layers and archives from folders.

A node does not import a layer that it has, so an unchanged folder must give an unchanged digest.
"""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_MTIME = 1_700_000_000
"""Modification time of every file, in seconds: any constant after 1980."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PREFIX = "application/vnd.oci.image"


@dataclass(frozen=True)
class Layer:
    """An uncompressed layer on disk."""

    path: Path
    digest: str
    """In OCI form, `sha256:...`."""
    size: int


@dataclass(frozen=True)
class ImageConfig:
    """Defaults of a container of the image."""

    command: tuple[str, ...]
    user: str = "0"
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def make_layer(folder: Path, output: Path) -> Layer:
    """Writes a folder as a layer: sorted, owned by root, with a fixed time. Its digest is stored in a second file."""
    scratch = output.with_suffix(".new")
    with tarfile.open(scratch, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=_plain)
    with scratch.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _digest_file(output).write_text(digest)
    scratch.rename(output)
    return Layer(output, f"sha256:{digest}", output.stat().st_size)


def load_layer(path: Path) -> Layer | None:
    """Loads a layer that `make_layer` wrote; None when it is missing."""
    if not path.exists():
        return None
    return Layer(path, f"sha256:{_digest_file(path).read_text()}", path.stat().st_size)


def image_digest(name: str, layers: Sequence[Layer], config: ImageConfig) -> str:
    """Returns the digest of the manifest that `write_archive` would write."""
    return _digest(_documents(name, layers, config)["manifest"])


def write_archive(
    output: Path, name: str, layers: Sequence[Layer], config: ImageConfig, *, left_out: Sequence[Layer] = ()
) -> None:
    """Writes an OCI archive for `ctr images import` and `kind load image-archive`.

    Args:
        output: Path of the archive.
        name: Name of the image with its tag.
        layers: Its layers, the lowest first.
        config: Defaults of its containers.
        left_out: Layers whose content is not written, because every importer has it.
    """
    documents = _documents(name, layers, config)
    scratch = output.with_suffix(".new")
    with tarfile.open(scratch, "w", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "oci-layout", documents["layout"])
        _add(archive, "index.json", documents["index"])
        for document in ("manifest", "config"):
            _add(archive, _blob(_digest(documents[document])), documents[document])
        for layer in layers:
            if layer not in left_out:
                with layer.path.open("rb") as stream:
                    archive.addfile(_entry(_blob(layer.digest), layer.size), stream)
    scratch.rename(output)


def _documents(name: str, layers: Sequence[Layer], config: ImageConfig) -> dict[str, bytes]:
    settings: dict[str, Any] = {
        "Cmd": list(config.command),
        "User": config.user,
        "WorkingDir": "/",
        "Env": [f"{key}={value}" for key, value in config.env.items()],
    }
    if config.labels:
        settings["Labels"] = dict(config.labels)
    image = _json(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_PREFIX}.manifest.v1+json",
            "config": _descriptor(f"{_PREFIX}.config.v1+json", _digest(image), len(image)),
            "layers": [_descriptor(f"{_PREFIX}.layer.v1.tar", layer.digest, layer.size) for layer in layers],
        }
    )
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    top = _descriptor(f"{_PREFIX}.manifest.v1+json", _digest(manifest), len(manifest)) | {"annotations": annotations}
    return {
        "layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index": _json({"schemaVersion": 2, "manifests": [top]}),
        "manifest": manifest,
        "config": image,
    }


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = _MTIME
    return entry


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _digest(document: bytes) -> str:
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest_file(layer: Path) -> Path:
    return layer.with_suffix(".sha256")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    entry.mtime = _MTIME
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_entry(name, len(content)), io.BytesIO(content))
