from pathlib import Path

from gpufleet_testbed.config import Provider
from gpufleet_testbed.status import Status


def test_status_names_the_version_of_kubernetes_and_what_is_broken() -> None:
    status = Status(
        provider=Provider.LOCAL,
        kubernetes="1.34",
        nodes={"node-1": True, "node-2": False},
        components={"etcd": "running", "dns": "ended with status 1"},
        kubeconfig=Path("/cluster/admin"),
        log_dir=Path("/cluster/log"),
        owner=None,
        started="2026-01-01T00:00:00Z",
    )
    assert not status.healthy
    assert str(status).splitlines() == [
        "provider    local, since 2026-01-01T00:00:00Z, until `down`",
        "kubernetes  1.34",
        "node-1      Ready",
        "node-2      NotReady",
        "dns: ended with status 1",
        "kubeconfig  /cluster/admin",
        "logs        /cluster/log",
    ]
