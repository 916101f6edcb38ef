import subprocess
from pathlib import Path

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.local.layout import Layout
from gpufleet_testbed.local.setup import command_lines


def test_cluster_has_its_own_namespaces(layout: Layout) -> None:
    command = command_lines.namespace(layout, [Path("/sys/fs/cgroup/x")])
    assert command[0] == "unshare"
    assert {"--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"} <= set(command)
    assert command[-3:] == ["--cgroup=/sys/fs/cgroup/x", "/cache/cluster/control.sock", "--lifeline"]


def test_node_shares_the_network_and_has_no_lifeline(layout: Layout) -> None:
    command = command_lines.node_namespace(layout.node(1), [])
    assert "--net" not in command
    assert "--lifeline" not in command
    assert command[-1] == "/cache/cluster/nodes/node-1/control.sock"


def test_the_nodes_shell_lines_parse(layout: Layout) -> None:
    command = command_lines.node_namespace(layout.node(1), [])
    text = command[command.index("-ec") + 1]
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    assert "/proc/sys/$setting" in text
    assert "kernel/panic_on_oops" in text
    assert "snapshots/*" in text


def test_apiserver_is_strict_about_nodes(layout: Layout, assets: Assets) -> None:
    command = command_lines.apiserver(layout, assets, None)
    assert "--authorization-mode=Node,RBAC" in command
    assert "--enable-admission-plugins=NodeRestriction" in command
    assert "--kubelet-preferred-address-types=InternalIP" in command
    assert not any(word.startswith(("--audit", "--anonymous-auth=true", "--disable-admission")) for word in command)


def test_apiserver_audits_when_asked(layout: Layout, assets: Assets) -> None:
    command = command_lines.apiserver(layout, assets, Path("/policy"))
    assert "--audit-policy-file=/policy" in command
    assert "--audit-log-path=/cache/cluster/log/audit.log" in command


def test_kube_proxy_does_not_change_conntrack_settings(layout: Layout, assets: Assets) -> None:
    command = command_lines.proxy(layout, assets)
    assert {"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"} <= set(command)


def test_every_component_runs_the_binary_it_was_given(layout: Layout, assets: Assets) -> None:
    node = layout.node(1)
    started = [
        command_lines.etcd(layout, assets),
        command_lines.apiserver(layout, assets, None),
        command_lines.controller_manager(layout, assets),
        command_lines.scheduler(layout, assets),
        command_lines.proxy(layout, assets),
        command_lines.dns(layout, assets),
        command_lines.containerd(node, assets),
        command_lines.kubelet(layout, node, assets),
    ]
    assert [command[0].removeprefix("/bin/") for command in started] == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "coredns",
        "containerd",
        "kubelet",
    ]


def test_entering_joins_the_children_of_unshare() -> None:
    command = command_lines.enter(42, network=True)
    assert command[:4] == [
        "nsenter",
        "--mount=/proc/42/ns/mnt",
        "--pid=/proc/42/ns/pid_for_children",
        "--net=/proc/42/ns/net",
    ]
    assert not any("--net" in word for word in command_lines.enter(42, network=False))
