"""Configuration files of a local cluster, as text from plain values."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gpufleet_testbed.local.layout import CLUSTER_DOMAIN, KUBELET_HEALTH_PORT, KUBELET_PORT, Layout, NodeLayout
from gpufleet_testbed.versions import PAUSE_IMAGE

CNI_PLUGINS = Path("/usr/lib/cni")
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


def kubeconfig(server: str, authority: bytes, certificate: bytes, key: bytes) -> str:
    """Builds a kubeconfig with embedded certificates."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "gpufleet", "cluster": {"server": server, "certificate-authority-data": encoded(authority)}}
        ],
        "users": [{"name": "gpufleet", "user": user}],
        "contexts": [{"name": "gpufleet", "context": {"cluster": "gpufleet", "user": "gpufleet"}}],
        "current-context": "gpufleet",
    }
    return yaml.safe_dump(content, sort_keys=False)


def kubelet_config(
    layout: Layout, node: NodeLayout, node_status_seconds: int, feature_gates: Mapping[str, bool]
) -> str:
    """Builds a node's KubeletConfiguration as JSON; other fields and feature gates keep Kubernetes' defaults."""
    content: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "port": KUBELET_PORT,
        "healthzBindAddress": node.address,
        "healthzPort": KUBELET_HEALTH_PORT,
        "tlsCertFile": str(layout.pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(layout.pki / f"{node.name}.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        # Not "/": a kubelet removes every pod cgroup below its root that does not belong to its own pods.
        "cgroupRoot": f"/{node.cgroup}",
        # The default is true from Kubernetes 1.35 on.
        "failCgroupV1": False,
        "failSwapOn": False,
        "nodeStatusUpdateFrequency": f"{node_status_seconds}s",
        # A container that tests kill several times, such as the agent's, is back within this time instead of 300 s.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
        # The disk is shared with other programs of this machine: evict only when it is full.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        "clusterDNS": [layout.api_address],
        "clusterDomain": CLUSTER_DOMAIN,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "registerNode": True,
        "featureGates": dict(feature_gates),
    }
    return json.dumps(content, indent=2) + "\n"


def corefile(layout: Layout) -> str:
    """Builds the configuration of CoreDNS: names of the cluster only. It rejects others, because nothing is outside.

    It reads as administrator: no role of kube-apiserver lists all that the plugin needs.
    """
    return f"""\
{CLUSTER_DOMAIN} {{
    bind {layout.api_address}
    errors
    kubernetes {CLUSTER_DOMAIN} {{
        kubeconfig {layout.kubeconfig}
    }}
}}
"""


def cni_config(node: NodeLayout) -> str:
    """Builds a node's pod network: a bridge. The cluster's namespace routes between bridges, without masquerading."""
    content = {
        "cniVersion": "1.0.0",
        "name": f"gpufleet-{node.name}",
        "plugins": [
            {
                "type": "bridge",
                "bridge": node.bridge,
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": node.pod_network}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def containerd_config(node: NodeLayout) -> str:
    """Builds the configuration of containerd; its folders are the usual ones, private to the node."""
    return f"""\
version = 3

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE_IMAGE}'

[plugins.'io.containerd.cri.v1.runtime']
  enable_cdi = true
  cdi_spec_dirs = ['/etc/cdi', '/run/cdi']
  # Otherwise a pod's network namespace would be mounted on a file in the host's /run.
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{CNI_PLUGINS}']
    conf_dir = '{node.cni}'

[plugins.'io.containerd.internal.v1.opt']
  path = '/var/lib/containerd-opt'
"""
