"""The test bed: operations of a cluster, and that nothing of it is left after every kind of end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from gpufleet_testbed import (
    BUSYBOX_IMAGE,
    PROJECT_IMAGE,
    Cluster,
    ClusterConfig,
    ConflictError,
    NotRunningError,
    Provider,
    attach,
    cache_dir,
    down,
    status,
    up,
    wait_until,
)
from gpufleet_testbed.local.layout import cgroup_name, lock_file
from gpufleet_testbed.local.processes.process_id import ProcessId
from gpufleet_testbed.local.teardown import read_processes

SPARE = ClusterConfig.from_environment(
    provider=Provider.LOCAL, name="spare", network="10.245.0.0/16", nodes=1, project_image=False
)
_FIELDS = {name: getattr(SPARE, name) for name in ("name", "network", "nodes", "project_image", "kubernetes")}
SPARE_SOURCE = f"ClusterConfig(**{_FIELDS})"
"""The same for programs of the tests."""
ROOT = cache_dir() / "cluster-spare"
LINK = "gf-spare"
SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")

pytestmark = pytest.mark.skipif(
    os.environ.get("GPUFLEET_CLUSTER_PROVIDER") == "kind", reason="these are promises of the local provider"
)


@dataclass(frozen=True)
class Machine:
    """What a cluster could leave behind on this machine."""

    links: frozenset[str]
    mounts: frozenset[str]
    rules: frozenset[str]
    cgroups: frozenset[str]
    folders: frozenset[str]
    settings: frozenset[str]

    @classmethod
    def now(cls) -> "Machine":
        links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, check=True, text=True).stdout)
        rules = subprocess.run(["iptables-save"], capture_output=True, check=True, text=True).stdout
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return cls(
            # Other clusters may run at the same time; their interfaces are gf0 and gf-NAME.
            links=frozenset(
                link["ifname"] for link in links if link["ifname"] == LINK or not link["ifname"].startswith("gf")
            ),
            mounts=frozenset(mounts),
            rules=frozenset(line for line in rules.splitlines() if line.startswith("-A")),
            # os.walk skips what ends meanwhile: cgroups of other clusters' pods.
            cgroups=frozenset(path for path, _, _ in os.walk("/sys/fs/cgroup") if Path(path).name == cgroup_name(ROOT)),
            folders=frozenset(
                str(path) for top in ("/opt", "/run", "/var/lib", "/var/log", "/etc") for path in Path(top).iterdir()
            ),
            settings=frozenset(f"{name} = {Path('/proc/sys', name).read_text()}" for name in SYSCTLS),
        )

    def new_since(self, before: "Machine") -> dict[str, frozenset[str]]:
        """What is there now and was not there before, by kind."""
        added = {field.name: getattr(self, field.name) - getattr(before, field.name) for field in fields(self)}
        return {name: found for name, found in added.items() if found}


@pytest.fixture
def machine() -> Iterator[Machine]:
    """This machine before the test; afterwards nothing of the spare cluster may be left."""
    down("spare")
    before = Machine.now()
    yield before
    try:
        assert processes_of(ROOT) == []
        assert not ROOT.exists()
        assert not lock_file(ROOT).exists()
        assert Machine.now().new_since(before) == {}
    finally:
        down("spare")


@contextmanager
def interruptible() -> Iterator[None]:
    """Children heed SIGINT, also when this run is in the background of a shell that had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def processes_of(root: Path) -> list[str]:
    """Command lines that mention a folder; every process of a cluster runs with a file from its folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(root) in line:
            found.append(line)
    return found


def pod(name: str, node: str, command: list[str], image: str = BUSYBOX_IMAGE) -> str:
    container = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": command}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def ready(cluster: Cluster, *names: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *(f"pod/{name}" for name in names), timeout=70)


@pytest.fixture
def pods(cluster: Cluster) -> Iterator[dict[str, str]]:
    """A web server on the first node and a client on the last; their names by role."""
    first, last = cluster.nodes[0].name, cluster.nodes[-1].name
    serve = ["sh", "-c", "echo served > /tmp/index.html; echo started; exec httpd -f -p 8080 -h /tmp"]
    names = {"server": "test-bed-server", "client": "test-bed-client"}
    cluster.kubectl("apply", "-f", "-", stdin=pod(names["server"], first, serve))
    cluster.kubectl("apply", "-f", "-", stdin=pod(names["client"], last, ["sleep", "3600"]))
    try:
        ready(cluster, *names.values())
        yield names
    finally:
        cluster.kubectl("delete", "pod", "--force", "--grace-period=0", *names.values())


def containers(cluster: Cluster, pods: dict[str, str]) -> list[str]:
    template = "{.items[*].status.containerStatuses[0].containerID}"
    return cluster.kubectl("get", "pod", *pods.values(), "-o", f"jsonpath={template}").stdout.split()


def can_exec(cluster: Cluster, pods: dict[str, str]) -> bool:
    return all(cluster.kubectl("exec", name, "--", "true", check=False).returncode == 0 for name in pods.values())


def fetch(cluster: Cluster, pods: dict[str, str]) -> str:
    address = cluster.kubectl("get", "pod", pods["server"], "-o", "jsonpath={.status.podIP}").stdout
    return cluster.kubectl("exec", pods["client"], "--", "wget", "-qO-", f"http://{address}:8080/").stdout


def test_pods_connect_across_nodes_and_answer_exec_and_logs(cluster: Cluster, pods: dict[str, str]) -> None:
    assert fetch(cluster, pods) == "served\n"
    assert cluster.kubectl("logs", pods["server"]).stdout == "started\n"


def test_kubelet_and_containerd_restart_under_running_pods(cluster: Cluster, pods: dict[str, str]) -> None:
    before = containers(cluster, pods)
    for node in cluster.nodes:
        node.restart_kubelet()
        node.restart_containerd()
    # A kubelet that has just started knows its pods only when it has asked the apiserver for them.
    wait_until(lambda: can_exec(cluster, pods), "the client can be entered again", timeout=30)
    assert fetch(cluster, pods) == "served\n"
    assert containers(cluster, pods) == before


def test_node_has_its_driver_folder(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    marker = node.driver_dir / "marker"
    marker.write_text("from outside")
    try:
        assert node.run(["cat", "/opt/gpufleet/driver/marker"]).stdout == "from outside"
    finally:
        marker.unlink()


def test_project_image_runs_unprivileged(cluster: Cluster) -> None:
    program = "import os, grpclib, kopf, lightkube, numpy, pynvml, gpufleet_api.names; print(os.getuid())"
    wanted = pod("test-bed-image", cluster.nodes[0].name, ["python3", "-c", program], PROJECT_IMAGE)
    cluster.kubectl("apply", "-f", "-", stdin=wanted)
    try:
        cluster.kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/test-bed-image")
        assert cluster.kubectl("logs", "--previous", "test-bed-image").stdout == "65532\n"
    finally:
        cluster.kubectl("delete", "pod", "--force", "--grace-period=0", "test-bed-image")


def test_command_in_a_node_is_killed_at_its_timeout(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    with pytest.raises(TimeoutError):
        node.run(["sleep", "12345"], timeout=0.5)
    wait_until(
        lambda: "12345" not in node.run(["ps", "ax"]).stdout, "the command in the node has been killed", timeout=10
    )


def test_down_leaves_nothing_behind(machine: Machine) -> None:
    with up(SPARE) as spare:
        spare.kubectl("apply", "-f", "-", stdin=pod("left", spare.nodes[0].name, ["sleep", "3600"]))
        ready(spare, "left")
        assert processes_of(ROOT)
        assert Machine.now().new_since(machine).keys() >= {"links", "cgroups"}
    with pytest.raises(NotRunningError):
        attach("spare")


def test_frozen_node_is_removed(machine: Machine) -> None:
    with up(SPARE) as spare:
        spare.nodes[0].freeze()
    assert status("spare") is None


def test_killing_the_caller_removes_its_cluster(machine: Machine) -> None:
    program = (
        "import sys; from gpufleet_testbed import ClusterConfig, up\n"
        f"with up({SPARE_SOURCE}):\n"
        "    print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "up\n"
        monitor = monitor_of(ROOT)
        caller.kill()
    wait_until(lambda: not monitor.alive, "the monitor has removed the cluster", timeout=30)


def test_released_cluster_outlives_its_caller(machine: Machine) -> None:
    program = f"from gpufleet_testbed import ClusterConfig, up\nup({SPARE_SOURCE}).release()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    found = status("spare")
    assert found is not None
    assert (found.healthy, found.owner) == (True, None)
    down("spare")


def test_interrupting_a_start_leaves_nothing(machine: Machine) -> None:
    options = ["--name", SPARE.name, "up", "--nodes", "1", "--no-image"]
    environ = {**os.environ, "GPUFLEET_CLUSTER_NETWORK": SPARE.network, "GPUFLEET_CLUSTER_PROVIDER": "local"}
    with (
        interruptible(),
        subprocess.Popen(
            [sys.executable, "-m", "gpufleet_testbed", *options], stderr=subprocess.PIPE, env=environ, text=True
        ) as starting,
    ):
        wait_until((ROOT / "log" / "apiserver.log").exists, "the apiserver has been started", timeout=60)
        starting.send_signal(signal.SIGINT)
        _, said = starting.communicate(timeout=60)
    assert starting.returncode == 130
    assert "interrupted; nothing is left running" in said


def test_killing_the_monitor_ends_every_process(machine: Machine) -> None:
    up(SPARE, detach=True)
    monitor_of(ROOT).end(signal.SIGKILL)
    wait_until(lambda: processes_of(ROOT) == [], "all processes have ended", timeout=30)
    assert status("spare") is None
    down("spare")


def test_second_up_takes_over_a_matching_cluster_only(machine: Machine) -> None:
    with up(SPARE) as first:
        with up(SPARE) as second:
            assert not second.owned
            assert second.kubeconfig == first.kubeconfig
        assert first.kubectl("get", "--raw", "/readyz").stdout == "ok"
        wanted = replace(SPARE, nodes=2)
        with pytest.raises(ConflictError, match="nodes is 1, not 2"):
            up(wanted)


def test_killed_node_boots_again_with_its_pods(machine: Machine) -> None:
    with up(SPARE) as spare:
        node = spare.nodes[0]
        spare.kubectl("apply", "-f", "-", stdin=pod("survivor", node.name, ["sleep", "3600"]))
        ready(spare, "survivor")
        node.kill()
        node.boot()
        spare.kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/survivor")
        ready(spare, "survivor")


def monitor_of(root: Path) -> ProcessId:
    processes = read_processes(root)
    assert processes is not None
    return processes.monitor
