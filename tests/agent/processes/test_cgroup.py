"""Paths as kernels and kubelets write them."""

import pytest

from gpufleet_agent.processes.cgroup import pod_uids

UID = "6a9d8b1c-1f2e-4a3b-9c4d-5e6f70819203"
UNDERSCORED = UID.replace("-", "_")
CONTAINER = "3f2a" * 16

V1 = f"""\
12:pids:/kubepods/burstable/pod{UID}/{CONTAINER}
11:memory:/kubepods/burstable/pod{UID}/{CONTAINER}
4:cpu,cpuacct:/kubepods/burstable/pod{UID}/{CONTAINER}
1:name=systemd:/kubepods/burstable/pod{UID}/{CONTAINER}
0::/system.slice/containerd.service
"""
V1_SYSTEMD = f"""\
9:memory:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/docker-{CONTAINER}.scope
1:name=systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/docker-{CONTAINER}.scope
"""
SLICES = "/kubepods.slice/kubepods-burstable.slice"


@pytest.mark.parametrize(
    ("cgroups", "expected"),
    [
        pytest.param(V1, (UID,), id="version 1, cgroupfs"),
        pytest.param(V1_SYSTEMD, (UID,), id="version 1, systemd"),
        pytest.param(f"0::/kubepods/pod{UID}/{CONTAINER}\n", (UID,), id="version 2, cgroupfs, guaranteed"),
        pytest.param(f"0::/kubepods/besteffort/pod{UID}/{CONTAINER}\n", (UID,), id="version 2, cgroupfs, best effort"),
        pytest.param(
            f"0::{SLICES}/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{CONTAINER}.scope\n",
            (UID,),
            id="version 2, systemd, containerd",
        ),
        pytest.param(
            f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-{CONTAINER}.scope/container\n",
            (UID,),
            id="version 2, systemd, CRI-O, guaranteed",
        ),
        pytest.param(
            f"0::/../../kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{CONTAINER}.scope",
            (UID,),
            id="seen from a cgroup namespace",
        ),
        pytest.param(
            f"0::/../pod{UID}/{CONTAINER}\n",
            (UID,),
            id="seen from a pod of the same class",
        ),
        pytest.param(
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
            f"kubelet-kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{CONTAINER}.scope\n",
            (UID,),
            id="a node that is a container",
        ),
        pytest.param(
            f"0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/{CONTAINER}\n",
            ("0123456789abcdef0123456789abcdef",),
            id="a static pod",
        ),
        pytest.param(
            f"0::/kubepods/pod11111111-2222-3333-4444-555555555555/{CONTAINER}/kubepods/burstable/pod{UID}/{CONTAINER}\n",
            ("11111111-2222-3333-4444-555555555555", UID),
            id="a cluster inside a pod",
        ),
        pytest.param("0::/system.slice/nvidia-persistenced.service\n", (), id="a process of the host"),
        pytest.param("0::/user.slice/user-1000.slice/session-3.scope\n", (), id="a user's shell"),
        pytest.param("0::/machine.slice/libpod-" + "a" * 64 + ".scope\n", (), id="a podman container"),
        pytest.param(f"0::/kubepods/mypod{UID}x/{CONTAINER}\n", (), id="something longer"),
        pytest.param("0::/\n", (), id="the root"),
        pytest.param("", (), id="nothing"),
    ],
)
def test_the_pod_of_a_process(cgroups: str, expected: tuple[str, ...]) -> None:
    assert pod_uids(cgroups) == expected
