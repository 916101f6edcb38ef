from dataclasses import replace
from pathlib import Path

from gpufleet_testbed.local.layout import Layout, cgroup_name, link_name


def test_addresses_are_distinct_and_inside_the_network(layout: Layout) -> None:
    layout = replace(layout, nodes=20)
    addresses = [layout.host_address, layout.api_address, *(node.address for node in layout.node_layouts)]
    assert addresses[:3] == ["10.244.0.1", "10.244.0.2", "10.244.0.11"]
    assert len(set(addresses)) == 22
    networks = [node.pod_network for node in layout.node_layouts]
    assert networks[0] == "10.244.1.0/24"
    assert len(set(networks)) == 20


def test_clusters_of_other_names_share_nothing(layout: Layout) -> None:
    other = replace(layout, name="spare", root=Path("/cache/cluster-spare"))
    assert other.link != layout.link
    assert other.control_plane_cgroup != layout.control_plane_cgroup
    assert len(link_name("a" * 12)) <= 15


def test_cgroup_depends_on_the_folder_and_not_on_the_name() -> None:
    assert cgroup_name(Path("/one/cluster")) != cgroup_name(Path("/two/cluster"))


def test_nodes_live_below_the_clusters_cgroup(layout: Layout) -> None:
    node = layout.node(1)
    assert node.cgroup == f"{cgroup_name(layout.root)}/node-1"
    assert node.system_cgroup == f"{node.cgroup}/system"
