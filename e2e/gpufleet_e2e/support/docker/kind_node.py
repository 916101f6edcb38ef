"""The node image of kind in the cache of this machine: the engine of a test has none at its start."""

from gpufleet_e2e.support.docker.engine import DockerEngine
from gpufleet_testbed import cache_dir
from gpufleet_testbed.binaries.assets import find_assets
from gpufleet_testbed.host.file_lock import locked
from gpufleet_testbed.kind.node_image.build import build_node_image, node_image_name
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.versions import KIND

_PREFIX = "kind-node-"


def load_node_image(engine: DockerEngine) -> None:
    """Loads the image into the engine; builds it first, once for each version of its parts.

    Raises:
        ClusterError: It cannot be built.
    """
    folder = cache_dir() / "docker"
    archive = folder / f"{_PREFIX}{node_image_name().rpartition('-')[2]}.tar"
    with locked(folder):
        if not archive.exists():
            kind = find_assets(cache_dir(), Progress(), tools=(KIND,))["kind"]
            name = build_node_image(cache_dir(), kind, Progress())
            engine("save", f"--output={archive}.part", name, timeout=300)
            for old in folder.glob(f"{_PREFIX}*.tar"):
                old.unlink()
            archive.with_name(f"{archive.name}.part").rename(archive)
            return
    engine("load", f"--input={archive}", timeout=300)
