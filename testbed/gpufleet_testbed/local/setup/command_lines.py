"""Command lines of all components, from plain values."""

import sys
from pathlib import Path

from gpufleet_testbed.binaries.assets import Assets
from gpufleet_testbed.images.store import MOUNT_LAYERS
from gpufleet_testbed.local.layout import API_PORT, DRIVER_MOUNT, SERVICE_NETWORK, Layout, NodeLayout

SUPERVISOR = Path(__file__).parents[1] / "processes" / "supervisor.py"
_ETCD = "http://127.0.0.1:2379"

KUBELET_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""Settings of the whole machine that a kubelet sets at its start, with its values."""

_NODE_MOUNTS = f"""\
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock
mount --bind "$1/var-lib" /var/lib
mount --bind "$1/var-log" /var/log
mount --rbind /opt "$1/opt"
mount -t tmpfs -o mode=755 tmpfs /opt
for folder in "$1"/opt/*/; do
  name=/opt/$(basename "$folder")
  [ ! -d "$folder" ] || [ "$name" = /opt/gpufleet ] || {{ mkdir "$name"; mount --rbind "$folder" "$name"; }}
done
mkdir -p {DRIVER_MOUNT}
mount --bind "$1/driver" {DRIVER_MOUNT}
for setting in {" ".join(KUBELET_SYSCTLS)}; do
  mount --bind "$1/sysctl/$(echo $setting | tr / _)" /proc/sys/$setting
done
{MOUNT_LAYERS}mount --make-rshared /
shift
exec "$@"
"""
"""A node has its own /run (empty at boot), /var/lib and /var/log, so that kubelet, containerd and CNI use their usual
paths and leave nothing on the machine; its /opt is this machine's with an additional folder. Settings that a kubelet
would change for the whole machine are covered by files with the values that it expects. Shared propagation makes
volumes visible in pods."""


def _supervisor(socket: Path, cgroups: list[Path]) -> list[str]:
    joined = [f"--cgroup={folder}" for folder in cgroups]
    return [sys.executable, "-I", "-S", str(SUPERVISOR), *joined, str(socket)]


def namespace(layout: Layout, cgroups: list[Path]) -> list[str]:
    """Starts the cluster's process, with its own network, mount and PID namespaces."""
    return [
        "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL",
        *_supervisor(layout.control, cgroups), "--lifeline",
    ]  # fmt: skip


def node_namespace(node: NodeLayout, cgroups: list[Path]) -> list[str]:
    """Starts a node's process, with mount and PID namespaces inside the cluster's."""
    return [
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL",
        "sh", "-ec", _NODE_MOUNTS, "node", str(node.folder), *_supervisor(node.control, cgroups),
    ]  # fmt: skip


def etcd(layout: Layout, assets: Assets) -> list[str]:
    """Starts etcd without fsync, because the cluster is temporary."""
    peer = "http://127.0.0.1:2380"
    return [
        assets["etcd"],
        f"--data-dir={layout.root / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def apiserver(layout: Layout, assets: Assets, audit_policy: Path | None) -> list[str]:
    """Starts kube-apiserver with Node and RBAC authorization, NodeRestriction, and the default admission plugins.

    It calls webhooks at the addresses of pods: the cluster's network has no route to those of Services.
    """
    pki = layout.pki
    audit = (
        [f"--audit-policy-file={audit_policy}", f"--audit-log-path={layout.logs / 'audit.log'}"] if audit_policy else []
    )
    return [
        assets["kube-apiserver"],
        f"--etcd-servers={_ETCD}",
        f"--secure-port={API_PORT}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={layout.api_address}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        "--enable-aggregator-routing",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy.key'}",
        *audit,
    ]


def controller_manager(layout: Layout, assets: Assets) -> list[str]:
    """Starts kube-controller-manager with the default controllers; one instance needs no leader election."""
    pki = layout.pki
    return [
        assets["kube-controller-manager"],
        f"--kubeconfig={layout.component_kubeconfig('controller-manager')}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials",
        # At the default of 20 requests a second it spends 4 s on the tokens of its own controllers.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--flex-volume-plugin-dir={layout.root / 'volume-plugins'}",
    ]


def scheduler(layout: Layout, assets: Assets) -> list[str]:
    """Starts kube-scheduler with its default profile."""
    kubeconfig = layout.component_kubeconfig("scheduler")
    return [assets["kube-scheduler"], f"--kubeconfig={kubeconfig}", "--bind-address=127.0.0.1", "--leader-elect=false"]


def proxy(layout: Layout, assets: Assets) -> list[str]:
    """Starts one kube-proxy for all nodes, because they share the cluster's network namespace."""
    return [
        assets["kube-proxy"],
        f"--kubeconfig={layout.component_kubeconfig('proxy')}",
        f"--hostname-override={layout.node(1).name}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={layout.network}",
        "--bind-address=0.0.0.0",
        # Zero leaves these settings of the whole machine unchanged.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def dns(layout: Layout, assets: Assets) -> list[str]:
    """Starts CoreDNS for the pods of all nodes."""
    return [assets["coredns"], f"-conf={layout.corefile}"]


def containerd(node: NodeLayout, assets: Assets) -> list[str]:
    """Starts the node's containerd."""
    return [assets["containerd"], f"--config={node.containerd_config}"]


def kubelet(layout: Layout, node: NodeLayout, assets: Assets) -> list[str]:
    """Starts the node's kubelet."""
    return [
        assets["kubelet"],
        f"--config={node.kubelet_config}",
        f"--kubeconfig={layout.component_kubeconfig(node.name)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        "--v=2",
    ]


def enter(pid: int, proc: str = "/proc", *, network: bool) -> list[str]:
    """Returns the prefix that runs a command inside the namespaces of an `unshare` process.

    `pid_for_children` leads to its child, process 1 of the PID namespace. The command dies with the caller.
    """
    ns = f"{proc}/{pid}/ns"
    net = [f"--net={ns}/net"] if network else []
    return ["nsenter", f"--mount={ns}/mnt", f"--pid={ns}/pid_for_children", *net, "--", "setpriv", "--pdeathsig=KILL"]
