"""The project's image: base layer, a layer with the locked dependencies, and a small one with the project's code.

A layer is built again only when its input changes, so that a change of the code rebuilds only the small one.
"""

import configparser
import hashlib
import os
import shutil
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpufleet_testbed.config import cache_dir, repository_root
from gpufleet_testbed.errors import HostError, Problem
from gpufleet_testbed.host.command import Runner, run
from gpufleet_testbed.host.file_lock import locked
from gpufleet_testbed.images.base import Base, build_base, compile_bytecode
from gpufleet_testbed.images.oci import ImageConfig, Layer, image_digest, load_layer, make_layer, write_archive
from gpufleet_testbed.images.users import NONROOT, PATH
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import PROJECT_IMAGE

_EXTRAS = ("operator", "agent", "cli")
IMAGE_CONFIG = ImageConfig(
    command=("gpufleet", "--help"),
    user=NONROOT,
    env={
        "PATH": PATH,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
    },
    labels={"org.opencontainers.image.title": "gpufleet", "org.opencontainers.image.licenses": "Apache-2.0"},
)
_LAUNCHER = """\
#!/usr/bin/python3
import sys
{missing}
from {module} import {function}

sys.exit({function}())
"""
_TRIMMED = ("numpy/**/tests", "numpy/**/include", "bin", "**/*.pyi")
"""Files of the dependencies that are not needed at run time."""
LOWER_IMAGE = "localhost/gpufleet-lower:1"
_MAX_CACHED = {"dependencies": 2, "code": 4, "full": 1, "upper": 4, "lower": 1}
"""Number of layers and archives of each kind in the cache."""


@dataclass(frozen=True)
class Image:
    """The project's image: layers in the cache, from which archives are written when needed."""

    cache: Path
    lower: tuple[Layer, ...]
    """Base and dependencies: large, and the same for many versions of the code."""
    code: Layer
    name: str = PROJECT_IMAGE

    @property
    def digest(self) -> str:
        """Digest of its manifest; the same for the same content."""
        return image_digest(self.name, [*self.lower, self.code], IMAGE_CONFIG)

    @property
    def size(self) -> int:
        """Uncompressed size of its layers in bytes."""
        return sum(layer.size for layer in (*self.lower, self.code))

    def archive(self) -> Path:
        """Writes a complete OCI archive."""
        return self._written("full", self.name, [*self.lower, self.code], ())

    def upper_archive(self) -> Path:
        """Writes an OCI archive without the lower layers, for nodes that have them."""
        return self._written("upper", self.name, [*self.lower, self.code], self.lower)

    def lower_archive(self) -> Path:
        """Writes an OCI archive of an image with only the lower layers."""
        return self._written("lower", LOWER_IMAGE, self.lower, ())

    @property
    def lower_path(self) -> Path:
        """The path that `lower_archive` writes; the same path means the same layers."""
        return self._path("lower", LOWER_IMAGE, self.lower)

    def _path(self, kind: str, name: str, layers: Sequence[Layer]) -> Path:
        digest = image_digest(name, layers, IMAGE_CONFIG).removeprefix("sha256:")
        return self.cache / "images" / f"{kind}-{digest[:10]}.tar"

    def _written(self, kind: str, name: str, layers: Sequence[Layer], left_out: Sequence[Layer]) -> Path:
        output = self._path(kind, name, layers)
        if not output.exists():
            write_archive(output, name, layers, IMAGE_CONFIG, left_out=left_out)
        _prune([output])
        return output


def build_image(
    cache: Path | None = None, progress: Progress | None = None, *, repository: Path | None = None, runner: Runner = run
) -> Image:
    """Builds localhost/gpufleet:dev from a checkout, within seconds when only the code changed.

    Args:
        cache: Folder of the layers; default `cache_dir()`.
        progress: Where steps are shown; default standard error.
        repository: The checkout; default the one of this package.
        runner: Runs programs.

    Raises:
        HostError: uv is missing.
        ClusterError: A step failed; the message contains its output.
    """
    cache = cache or cache_dir()
    with locked(cache / "images"):
        return build_layers(cache, progress or Progress(), repository=repository, runner=runner)


def build_layers(cache: Path, progress: Progress, *, repository: Path | None = None, runner: Runner = run) -> Image:
    """Does the work of `build_image` for callers that hold the lock of the image folder."""
    repository = repository or repository_root()
    base = build_base(cache, progress, runner)
    dependencies = _dependencies(base, cache, progress, repository, runner)
    code = _code(base, cache, progress, repository, runner)
    _prune([dependencies.path, code.path])
    return Image(cache, (base.layer, dependencies), code)


def product_files(repository: Path) -> list[Path]:
    """Returns every file of the wheel, sorted: the packages of pyproject.toml and the project's metadata."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    found = [
        path
        for package in packages
        for path in (repository / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return sorted([*found, repository / "pyproject.toml", repository / "README.md"])


def entry_points(text: str) -> dict[str, tuple[str, str]]:
    """Parses the console scripts of an entry_points.txt: name to (module, function)."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[method-assign,assignment] # names are case-sensitive; documented by configparser
    parser.read_string(text)
    scripts = parser["console_scripts"] if parser.has_section("console_scripts") else {}
    return {name: (target.partition(":")[0], target.partition(":")[2]) for name, target in scripts.items()}


def find_uv(cache: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Finds uv: the one that runs this process, one on the PATH, or the one that `make` puts into the cache.

    Raises:
        HostError: There is none.
    """
    in_cache = cache / "uv" / "bin" / "uv"
    found = environ.get("UV") or shutil.which("uv", path=environ.get("PATH"))
    if not found and os.access(in_cache, os.X_OK):
        found = str(in_cache)
    if not found:
        raise HostError([Problem("uv is not installed", "make setup, which puts it into the cache, or pip install uv")])
    return found


def launcher(module: str, function: str) -> str:
    """Returns the text of a console script.

    This image has the packages of all programs. `rich`, of the command line, is hidden from the others, which structlog
    and httpx2 would let import it, unlike in their own images.
    """
    missing = "" if module.startswith("gpufleet_cli.") else '\nsys.modules["rich"] = None\n'
    return _LAUNCHER.format(module=module, function=function, missing=missing)


def _site(base: Base) -> Path:
    return Path("usr/local/lib") / f"python{base.python}" / "dist-packages"


def _dependencies(base: Base, cache: Path, progress: Progress, repository: Path, runner: Runner) -> Layer:
    extras = [f"--extra={extra}" for extra in _EXTRAS]
    export = ["export", "--locked", "--quiet", "--no-dev", "--no-emit-project", "--no-header", *extras]
    requirements = runner([find_uv(cache), *export], cwd=repository, timeout=120).stdout
    output = _cached(cache, "dependencies", base.layer.digest, requirements)
    layer = load_layer(output)
    if layer:
        return layer
    with (
        progress.step("image: layer with the dependencies of uv.lock"),
        tempfile.TemporaryDirectory(dir=output.parent) as scratch,
    ):
        root = Path(scratch) / "root"
        site = root / _site(base)
        listing = Path(scratch) / "requirements.txt"
        listing.write_text(requirements)
        install = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        target = ["--target", str(site), "--python-version", base.python, "--link-mode=copy"]
        runner([find_uv(cache), *install, *target, "--requirements", str(listing)], timeout=600)
        _remove(site, _TRIMMED)
        compile_bytecode(base.root, root, runner)
        return make_layer(root, output)


def _code(base: Base, cache: Path, progress: Progress, repository: Path, runner: Runner) -> Layer:
    digest = hashlib.sha256()
    for path in product_files(repository):
        digest.update(f"{path.relative_to(repository)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    output = _cached(cache, "code", base.layer.digest, digest.hexdigest())
    layer = load_layer(output)
    if layer:
        return layer
    with (
        progress.step("image: layer with the project's code"),
        tempfile.TemporaryDirectory(dir=output.parent) as scratch,
    ):
        root = Path(scratch) / "root"
        site = root / _site(base)
        site.mkdir(parents=True)
        runner([find_uv(cache), "build", "--quiet", "--wheel", "--out-dir", scratch, str(repository)], timeout=300)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        (scripts,) = site.glob("*.dist-info/entry_points.txt")
        commands = root / "usr" / "local" / "bin"
        commands.mkdir(parents=True)
        for name, (module, function) in entry_points(scripts.read_text()).items():
            (commands / name).write_text(launcher(module, function))
            (commands / name).chmod(0o755)
        compile_bytecode(base.root, root, runner)
        return make_layer(root, output)


def _remove(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cached(cache: Path, kind: str, *inputs: str) -> Path:
    recipe = b"".join(Path(__file__).with_name(part).read_bytes() for part in ("project.py", "oci.py"))
    key = hashlib.sha256(repr(inputs).encode() + recipe).hexdigest()[:10]
    folder = cache / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}-{key}.tar"


def _prune(current: Sequence[Path]) -> None:
    """Removes old layers and archives: each change of the code creates new ones."""
    for path in current:
        path.touch()
        kind = path.name.partition("-")[0]
        newest_first = sorted(path.parent.glob(f"{kind}-*.tar"), key=lambda found: found.stat().st_mtime, reverse=True)
        for old in newest_first[_MAX_CACHED[kind] :]:
            old.unlink(missing_ok=True)
            old.with_suffix(".sha256").unlink(missing_ok=True)
