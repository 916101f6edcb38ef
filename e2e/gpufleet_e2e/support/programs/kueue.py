"""Kueue: its manager, built from its Go module, in an image; and its chart, from the same module."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpufleet_e2e.support import install
from gpufleet_e2e.support.programs import go_program
from gpufleet_testbed import Cluster, cache_dir
from gpufleet_testbed.images.oci import ImageConfig, make_layer, write_archive

BUILD_VARIABLE = "GPUFLEET_BUILD_KUEUE"
NAMESPACE = "kueue-system"

_MODULE = "kueue"
_DEPENDENCY = "sigs.k8s.io/kueue"
_IMAGE = "localhost/kueue"
_FLAGS = ("-gcflags=all=-dwarf=false", "-ldflags=-s -w")
_BUILD_SECONDS = 1800
_CONFIG = {
    "apiVersion": "config.kueue.x-k8s.io/v1beta2",
    "kind": "Configuration",
    "health": {"healthProbeBindAddress": ":8081"},
    "metrics": {"bindAddress": ":8443"},
    "webhook": {"port": 9443},
    "leaderElection": {"leaderElect": False},
    "integrations": {"frameworks": ["pod", "batch/job"]},
    "managedJobsNamespaceSelector": {
        "matchExpressions": [
            {
                "key": "kubernetes.io/metadata.name",
                "operator": "NotIn",
                "values": ["kube-system", NAMESPACE, install.NAMESPACE],
            }
        ]
    },
}


def missing() -> str:
    """Returns why Kueue is not available; empty: it is, or may be built."""
    if go_program.cached(_MODULE).exists() or os.environ.get(BUILD_VARIABLE):
        return ""
    return f"Kueue is not built: set {BUILD_VARIABLE}=1 to build it, once, in seven minutes of processor time"


@contextmanager
def kueue(cluster: Cluster) -> Iterator[None]:
    """Installs Kueue for pods and Jobs while the block runs. Its objects must be gone at the end."""
    cluster.load_image(_archive())
    tag = go_program.cached(_MODULE).parent.name
    manager = {
        "image": {"repository": _IMAGE, "tag": tag, "pullPolicy": "Never"},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }
    probe = {"initialDelaySeconds": 1, "periodSeconds": 1}
    values = {
        "controllerManager": {"manager": manager, "readinessProbe": probe},
        "managerConfig": {"controllerManagerConfigYaml": json.dumps(_CONFIG)},
    }
    chart = str(go_program.module_dir(_MODULE, _DEPENDENCY) / "charts" / "kueue")
    where = (f"--namespace={NAMESPACE}", "--wait")
    words = ("upgrade", "--install", "kueue", chart, *where, "--create-namespace", "--values=-")
    cluster.helm(*words, stdin=json.dumps(values), timeout=240)
    try:
        yield
    finally:
        cluster.helm("uninstall", "kueue", *where, timeout=180)
        cluster.kubectl("delete", "namespace", NAMESPACE, timeout=120)


def _archive() -> Path:
    """Returns the archive of the image, which holds the static program only."""
    program = go_program.built(_MODULE, f"{_DEPENDENCY}/cmd/kueue", flags=_FLAGS, seconds=_BUILD_SECONDS)
    output = cache_dir() / "images" / f"{program.parent.name}.tar"
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
            root = Path(scratch) / "root"
            (root / "tmp").mkdir(parents=True)
            shutil.copy(program, root / "manager")
            layer = make_layer(root, Path(scratch) / "layer.tar")
            config = ImageConfig(command=("/manager",), user="65532:65532")
            write_archive(output, f"{_IMAGE}:{program.parent.name}", [layer], config)
    return output
