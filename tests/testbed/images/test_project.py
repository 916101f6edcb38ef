import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gpufleet_testbed.config import repository_root
from gpufleet_testbed.errors import HostError
from gpufleet_testbed.images import project
from gpufleet_testbed.images.oci import make_layer


@pytest.fixture
def pyproject() -> dict[str, Any]:
    return tomllib.loads((repository_root() / "pyproject.toml").read_text())


def test_product_files_are_those_of_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.hatch.build.targets.wheel]\npackages = ["a/one", "b/two"]\n')
    for name in ("README.md", "a/one/x.py", "a/one/__pycache__/x.pyc", "b/two/data.json", "a/other/y.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = [str(path.relative_to(tmp_path)) for path in project.product_files(tmp_path)]
    assert found == ["README.md", "a/one/x.py", "b/two/data.json", "pyproject.toml"]


def test_product_files_of_this_checkout_are_of_every_package(pyproject: dict[str, Any]) -> None:
    found = {path.relative_to(repository_root()).as_posix() for path in project.product_files(repository_root())}
    for package in pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"{package}/__init__.py" in found


def test_programs_without_tables_cannot_import_rich() -> None:
    assert 'sys.modules["rich"] = None' in project.launcher("gpufleet_operator.main", "main")
    assert "sys.modules" not in project.launcher("gpufleet_cli.main", "main")


def test_entry_points_are_read() -> None:
    text = "[console_scripts]\ngpufleet-agent = gpufleet_agent.main:main\nCased = a.b:run\n\n[other]\nx = y:z\n"
    assert project.entry_points(text) == {
        "gpufleet-agent": ("gpufleet_agent.main", "main"),
        "Cased": ("a.b", "run"),
    }
    assert project.entry_points("") == {}


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    return path


def test_uv_is_found_by_variable_path_and_cache(tmp_path: Path) -> None:
    on_path, in_cache = executable(tmp_path / "bin" / "uv"), executable(tmp_path / "cache" / "uv" / "bin" / "uv")
    path = {"PATH": str(on_path.parent)}
    nowhere = {"PATH": str(tmp_path)}
    assert project.find_uv(tmp_path / "cache", {"UV": "/own/uv", **path}) == "/own/uv"
    assert project.find_uv(tmp_path / "cache", path) == str(on_path)
    assert project.find_uv(tmp_path / "cache", nowhere) == str(in_cache)
    with pytest.raises(HostError, match=r"uv is not installed\. Fix: make setup"):
        project.find_uv(tmp_path / "other", nowhere)


def test_archives_have_one_digest_and_old_ones_are_pruned(tmp_path: Path) -> None:
    layers = []
    for name in ("base", "dependencies", "code"):
        root = tmp_path / name
        root.mkdir()
        (root / name).write_text(name)
        layers.append(make_layer(root, tmp_path / f"{name}.tar"))
    (tmp_path / "images").mkdir()
    image = project.Image(tmp_path, (layers[0], layers[1]), layers[2])
    assert image.size == sum(layer.size for layer in layers)
    first = image.archive()
    assert first.name == f"full-{image.digest.removeprefix('sha256:')[:10]}.tar"
    assert image.upper_archive().stat().st_size < first.stat().st_size
    other = project.Image(tmp_path, (layers[0],), layers[2])
    assert not image.lower_path.exists()
    assert image.lower_archive() == image.lower_path
    assert other.lower_path != image.lower_path
    os.utime(first, (1, 1))
    assert other.archive().exists()
    assert not first.exists()


def test_the_dockerfile_is_the_same_image(pyproject: dict[str, Any]) -> None:
    text = (repository_root() / "Dockerfile").read_text()
    everything = text[text.index("FROM source AS all-code") : text.index("FROM $BASE AS python")]
    for name in pyproject["project"]["scripts"]:
        assert re.search(rf"\s{name}\s", everything), name
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for folder in {package.partition("/")[0] for package in packages}:
        assert f"COPY {folder} {folder}\n" in text
        assert f" {folder} " in everything
    assert f"dependencies {' '.join(sorted(('agent', 'operator', 'cli'), key=text.index))}" in text
    assert "USER 65532:65532" in text
    for name, value in project.IMAGE_CONFIG.env.items():
        assert f"{name}={value}" in text, name


def test_the_dockerfile_needs_no_newer_frontend() -> None:
    text = (repository_root() / "Dockerfile").read_text()
    assert not re.search(r"^# *syntax *=|<<|--mount", text, re.MULTILINE)
