"""The test bed: a real Kubernetes cluster on this machine, without Docker.

    from cluster import ClusterConfig, attach, down, status, up

    with up(ClusterConfig(nodes=2)) as cluster:      # ends with the block, or with this process, kill -9 included
        cluster.kubectl("get", "nodes").stdout
        cluster.helm("upgrade", "--install", "gpufleet", "charts/gpufleet", "--wait")
        node = cluster.nodes[0]
        node.name                                    # "node-1"
        node.driver_dir                              # host folder, /opt/gpufleet/driver inside the node
        node.run(["ls", "/var/lib/kubelet/device-plugins"]).stdout
        node.restart_kubelet()                       # running pods stay
        node.freeze(); node.thaw(); node.kill(); node.boot()
        cluster.load_image(Path("image.tar"))
        cluster.kubeconfig, cluster.log_dir

A cluster that `make cluster` started is taken over (and left running at exit) when it matches; see
docs/development/test-bed.md. `up(config, detach=True)` starts one that lives until `down()`; `attach()` is the handle
of what runs. On every node: the project's image `localhost/gpufleet:dev` and the small `localhost/busybox:1`.
"""

from cluster.config import ClusterConfig, Provider, cache_dir, repository_root
from cluster.errors import ClusterError, ConflictError, HostError, NotRunningError, Problem
from cluster.handle import Cluster, Node
from cluster.image.project import Image, build_image
from cluster.lifecycle import attach, build, down, status, up
from cluster.progress import Progress
from cluster.shell import exports
from cluster.summary import Status
from cluster.versions import BUSYBOX_IMAGE, PROJECT_IMAGE
from cluster.waiting import wait_until

__all__ = [
    "BUSYBOX_IMAGE",
    "PROJECT_IMAGE",
    "Cluster",
    "ClusterConfig",
    "ClusterError",
    "ConflictError",
    "HostError",
    "Image",
    "Node",
    "NotRunningError",
    "Problem",
    "Progress",
    "Provider",
    "Status",
    "attach",
    "build",
    "build_image",
    "cache_dir",
    "down",
    "exports",
    "repository_root",
    "status",
    "up",
    "wait_until",
]
