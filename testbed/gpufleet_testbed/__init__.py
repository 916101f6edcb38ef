"""The test bed: a real Kubernetes cluster on the local machine, without Docker.

    from gpufleet_testbed import ClusterConfig, attach, down, status, up

    with up(ClusterConfig(nodes=2)) as cluster:      # ends with the block, or with this process, kill -9 included
        cluster.kubectl("get", "nodes").stdout
        cluster.helm("upgrade", "--install", "gpufleet", "charts/gpufleet", "--wait")
        node = cluster.nodes[0]
        node.name                                    # "node-1"
        node.driver_dir                              # host folder, /opt/gpufleet/driver inside the node
        node.run(["ls", "/var/lib/kubelet/device-plugins"]).stdout
        node.restart_kubelet()                       # running pods are not affected
        node.freeze(); node.thaw(); node.kill(); node.boot()
        cluster.load_image(Path("image.tar"))
        cluster.kubeconfig, cluster.log_dir

A matching cluster that `make cluster` started is taken over, and keeps running at exit; see testbed/README.md.
`up(config, detach=True)` starts one that lives until `down()`; `attach()` returns a handle of the running one. Every
node has the project's image `localhost/gpufleet:dev` and the small `localhost/busybox:1`.
"""

from gpufleet_testbed.config import ClusterConfig, Provider, cache_dir, repository_root
from gpufleet_testbed.errors import ClusterError, ConflictError, HostError, NotRunningError, Problem
from gpufleet_testbed.handles import Cluster, Node
from gpufleet_testbed.images.project import Image, build_image
from gpufleet_testbed.lifecycle import attach, build, down, status, up
from gpufleet_testbed.progress import Progress
from gpufleet_testbed.shell import exports
from gpufleet_testbed.status import Status
from gpufleet_testbed.versions import BUSYBOX_IMAGE, PROJECT_IMAGE
from gpufleet_testbed.waiting import wait_until

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
