"""Pinned versions of the test bed. The go.mod files in binaries/modules pin all dependencies."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final


@dataclass(frozen=True)
class Tool:
    """A Go module and the binaries that are built from it."""

    name: str
    module: str
    version: str
    commands: tuple[tuple[str, str], ...]
    """Pairs of binary name and Go package."""
    tags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ("-s", "-w")
    variant: str = ""
    """Distinguishes versions of a tool that are pinned side by side."""

    @property
    def folder(self) -> str:
        """The folder of its go.mod and go.sum in binaries/modules."""
        return f"{self.name}-{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class KubernetesRelease:
    """A version of Kubernetes that the local provider can run."""

    tool: Tool
    kubelet_feature_gates: Mapping[str, bool] = field(default_factory=dict)
    """Gates that the kubelets' configuration needs. All others keep their defaults, as in the clusters of users."""

    @property
    def minor(self) -> str:
        """Such as `1.36`; how users select it."""
        return self.tool.variant


def _kubernetes(version: str) -> Tool:
    major, minor, _ = version.removeprefix("v").split(".")
    return Tool(
        name="kubernetes",
        module="k8s.io/kubernetes",
        version=version,
        variant=f"{major}.{minor}",
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
                    f"-X={package}.gitVersion={version}",
                    f"-X={package}.gitMajor={major}",
                    f"-X={package}.gitMinor={minor}",
                )
            ),
        ),
    )


KUBERNETES_RELEASES: Final[Mapping[str, KubernetesRelease]] = {
    release.minor: release
    for release in (
        KubernetesRelease(
            tool=_kubernetes("v1.34.4"),
            # crashLoopBackOff.maxContainerRestartPeriod is rejected without it.
            kubelet_feature_gates={"KubeletCrashLoopBackOffMax": True},
        ),
        KubernetesRelease(tool=_kubernetes("v1.35.4")),
        KubernetesRelease(tool=_kubernetes("v1.36.3")),
        KubernetesRelease(tool=_kubernetes("v1.37.2")),
    )
}
"""By minor version, the oldest first."""

DEFAULT_KUBERNETES: Final = "1.36"


ETCD: Final = Tool(
    name="etcd",
    module="go.etcd.io/etcd/server/v3",
    version="v3.6.16",
    commands=(("etcd", "go.etcd.io/etcd/server/v3"),),
)

KUBERNETES: Final = KUBERNETES_RELEASES[DEFAULT_KUBERNETES].tool

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

KWOK: Final = Tool(
    name="kwok",
    module="sigs.k8s.io/kwok",
    version="v0.8.0",
    commands=(("kwok", "sigs.k8s.io/kwok/cmd/kwok"),),
)
"""Plays nodes and their pods, for measurements at scale. No cluster needs it; it is built on first use."""

KUBEADM: Final = replace(
    KUBERNETES, name="kubeadm", variant="", commands=(("kubeadm", "k8s.io/kubernetes/cmd/kubeadm"),)
)

KIND_COREDNS: Final = replace(
    COREDNS, name="kind-coredns", commands=(("coredns", "gpufleet.dev/testbed/kind-coredns"),)
)
"""CoreDNS with the plugins that kubeadm's Corefile names."""

LOCAL_TOOLS: Final = (KUBERNETES, ETCD, CONTAINERD, COREDNS, HELM)
"""In the order of building: the largest first, helm last, because a cluster starts without it. CoreDNS and helm share
most of their packages."""

KUBECTL: Final = replace(KUBERNETES, commands=(KUBERNETES.commands[0],))
"""The only Kubernetes binary that a kind cluster needs outside of its nodes."""

KIND_TOOLS: Final = (KIND, KUBECTL, HELM)
NODE_TOOLS: Final = (KUBERNETES, ETCD, CONTAINERD, KUBEADM, KIND_COREDNS)
"""What an image of a kind node is made of on a machine without a registry."""


def local_tools(kubernetes: str) -> tuple[Tool, ...]:
    """Returns the tools of a local cluster: those of Kubernetes by its minor version, the others for all versions."""
    release = KUBERNETES_RELEASES[kubernetes]
    return tuple(release.tool if tool is KUBERNETES else tool for tool in LOCAL_TOOLS)


GO_MINIMUM: Final = (1, 26, 8)
"""The highest version required by the go.mod files. Go 1.21 and later fetches a newer toolchain by itself."""

PAUSE_IMAGE: Final = "localhost/pause:1"
BUSYBOX_IMAGE: Final = "localhost/busybox:1"
PROJECT_IMAGE: Final = "localhost/gpufleet:dev"

KIND_NODE_IMAGE: Final = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
"""Built for the pinned release of kind, with the default Kubernetes minor version of the local provider."""
