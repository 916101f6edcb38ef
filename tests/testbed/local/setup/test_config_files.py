import base64
import json
import tomllib

import yaml

from gpufleet_testbed.local.layout import Layout, NodeLayout, cgroup_name
from gpufleet_testbed.local.setup.config_files import (
    cni_config,
    containerd_config,
    corefile,
    kubeconfig,
    kubelet_config,
)
from gpufleet_testbed.versions import KUBERNETES_RELEASES


def test_kubeconfig_needs_no_other_file() -> None:
    content = yaml.safe_load(kubeconfig("https://1.2.3.4:6443", b"authority", b"certificate", b"key"))
    assert content["clusters"][0]["cluster"]["server"] == "https://1.2.3.4:6443"
    user = content["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == b"certificate"
    assert base64.b64decode(user["client-key-data"]) == b"key"
    assert content["current-context"] == content["contexts"][0]["name"]


def test_each_kubelet_has_its_own_address_and_cgroup(layout: Layout) -> None:
    first, second = (json.loads(kubelet_config(layout, node, 10, {})) for node in layout.node_layouts)
    assert (first["address"], second["address"]) == ("10.244.0.11", "10.244.0.12")
    assert first["cgroupRoot"] == f"/{cgroup_name(layout.root)}/node-1"
    assert second["cgroupRoot"] == f"/{cgroup_name(layout.root)}/node-2"
    assert first["authentication"]["anonymous"] == {"enabled": False}
    assert first["nodeStatusUpdateFrequency"] == "10s"


def test_old_kubelets_need_a_feature_gate_for_short_restarts(layout: Layout) -> None:
    gates = {
        minor: json.loads(kubelet_config(layout, layout.node(1), 10, release.kubelet_feature_gates))["featureGates"]
        for minor, release in KUBERNETES_RELEASES.items()
    }
    assert gates == {"1.34": {"KubeletCrashLoopBackOffMax": True}, "1.35": {}, "1.36": {}, "1.37": {}}


def test_pods_ask_coredns_for_names_of_the_cluster(layout: Layout) -> None:
    kubelet = json.loads(kubelet_config(layout, layout.node(1), 10, {}))
    zone, _, block = corefile(layout).partition(" {\n")
    assert zone == kubelet["clusterDomain"] == "cluster.local"
    (server,) = kubelet["clusterDNS"]
    assert f"bind {server}\n" in block
    assert f"kubeconfig {layout.kubeconfig}\n" in block


def test_pods_of_a_node_are_not_masked(layout: Layout) -> None:
    bridge, portmap = json.loads(cni_config(layout.node(2)))["plugins"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]
    assert "ipMasq" not in bridge
    assert portmap["type"] == "portmap"


def test_containerd_leaves_nothing_outside_of_the_node(layout: Layout) -> None:
    node: NodeLayout = layout.node(1)
    content = tomllib.loads(containerd_config(node))
    assert content["version"] == 3
    runtime = content["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["netns_mounts_under_state_dir"] is True
    assert runtime["enable_cdi"] is True
    assert runtime["cni"]["conf_dir"] == str(node.cni)
    assert content["plugins"]["io.containerd.internal.v1.opt"]["path"].startswith("/var/lib/")
    assert content["plugins"]["io.containerd.cri.v1.images"]["pinned_images"] == {"sandbox": "localhost/pause:1"}
