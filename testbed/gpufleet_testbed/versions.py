"""Pinned versions of the test bed. The go.mod files in binaries/modules pin all dependencies."""

from dataclasses import dataclass, replace
from typing import Final

_KUBERNETES: Final = "v1.36.3"


@dataclass(frozen=True)
class Tool:
    """A Go module and the binaries that are built from it."""

    name: str
    """Also the folder of its go.mod and go.sum in binaries/modules."""
    module: str
    version: str
    commands: tuple[tuple[str, str], ...]
    """Pairs of binary name and Go package."""
    tags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ("-s", "-w")


ETCD: Final = Tool(
    name="etcd",
    module="go.etcd.io/etcd/server/v3",
    version="v3.6.16",
    commands=(("etcd", "go.etcd.io/etcd/server/v3"),),
)

KUBERNETES: Final = Tool(
    name="kubernetes",
    module="k8s.io/kubernetes",
    version=_KUBERNETES,
    commands=tuple(
        (command, f"k8s.io/kubernetes/cmd/{command}")
        for command in (
            "kubectl",
            "kube-apiserver",
            "kubelet",
            "kube-scheduler",
            "kube-controller-manager",
            "kube-proxy",
        )
    ),
    # Without these the servers report v0.0.0, which version skew checks reject.
    ldflags=(
        "-s",
        "-w",
        *(
            word
            for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
            for word in (
                f"-X={package}.gitVersion={_KUBERNETES}",
                f"-X={package}.gitMajor={_KUBERNETES[1:].split('.')[0]}",
                f"-X={package}.gitMinor={_KUBERNETES[1:].split('.')[1]}",
            )
        ),
    ),
)

CONTAINERD: Final = Tool(
    name="containerd",
    module="github.com/containerd/containerd/v2",
    version="v2.3.7",
    commands=tuple(
        (command, f"github.com/containerd/containerd/v2/cmd/{command}")
        for command in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    tags=("no_btrfs", "no_devmapper", "no_zfs", "no_aufs"),
    ldflags=("-s", "-w", "-X=github.com/containerd/containerd/v2/version.Version=v2.3.7"),
)

COREDNS: Final = Tool(
    name="coredns",
    module="github.com/coredns/coredns",
    version="v1.14.5",
    commands=(("coredns", "gpufleet.dev/testbed/coredns"),),
)
"""Built from a main package in its folder, without most plugins."""

HELM: Final = Tool(
    name="helm",
    module="helm.sh/helm/v4",
    version="v4.2.4",
    commands=(("helm", "helm.sh/helm/v4/cmd/helm"),),
    ldflags=("-s", "-w", "-X=helm.sh/helm/v4/internal/version.version=v4.2.4"),
)

KIND: Final = Tool(
    name="kind",
    module="sigs.k8s.io/kind",
    version="v0.33.0",
    commands=(("kind", "sigs.k8s.io/kind"),),
)

KUBECTL: Final = replace(KUBERNETES, commands=(KUBERNETES.commands[0],))
"""The only Kubernetes binary that a kind cluster needs outside of its nodes."""

LOCAL_TOOLS: Final = (KUBERNETES, ETCD, CONTAINERD, COREDNS, HELM)
"""In the order of building: the largest first, helm last, because a cluster starts without it. CoreDNS and helm share
most of their packages."""
KIND_TOOLS: Final = (KIND, KUBECTL, HELM)

GO_MINIMUM: Final = (1, 26, 8)
"""The highest version required by the go.mod files. Go 1.21 and later fetches a newer toolchain by itself."""

PAUSE_IMAGE: Final = "localhost/pause:1"
BUSYBOX_IMAGE: Final = "localhost/busybox:1"
PROJECT_IMAGE: Final = "localhost/gpufleet:dev"

KIND_NODE_IMAGE: Final = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
"""Built for the pinned release of kind, with the Kubernetes minor version of the local provider."""
