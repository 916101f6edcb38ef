from dataclasses import dataclass

import pytest

from gpufleet_agent.plugin.registration import (
    RegistrationState,
    RegistrationStep,
    next_step,
    socket_name,
)
from gpufleet_agent.proto.socket_server import SocketId

OURS = SocketId(1, 10, 100)
KUBELET = SocketId(1, 20, 200)
NOW = 1000.0


@dataclass(frozen=True)
class Case:
    name: str
    want: RegistrationStep
    standing: RegistrationState
    ours: SocketId | None = OURS
    kubelet: SocketId | None = KUBELET
    wanted: bool = True


REGISTERED = RegistrationState(bound=OURS, registered_with=KUBELET)

CASES = [
    Case(
        "no device and not serving: nothing to do", RegistrationStep.WAIT, RegistrationState(), ours=None, wanted=False
    ),
    Case("devices and not serving: serve", RegistrationStep.BIND, RegistrationState(), ours=None),
    Case("serving and the kubelet is there: register", RegistrationStep.REGISTER, RegistrationState(bound=OURS)),
    Case(
        "serving and the kubelet is away: wait for it",
        RegistrationStep.WAIT,
        RegistrationState(bound=OURS),
        kubelet=None,
    ),
    Case("registered and listened to: nothing to do", RegistrationStep.WAIT, REGISTERED),
    Case("all devices went away while serving: go on serving", RegistrationStep.WAIT, REGISTERED, wanted=False),
    Case("another kubelet.sock: register", RegistrationStep.REGISTER, REGISTERED, kubelet=SocketId(1, 21, 300)),
    Case("the inode was used again: register", RegistrationStep.REGISTER, REGISTERED, kubelet=SocketId(1, 20, 300)),
    Case("our socket vanished: serve", RegistrationStep.BIND, REGISTERED, ours=None),
    Case("our socket vanished and the kubelet too: serve", RegistrationStep.BIND, REGISTERED, ours=None, kubelet=None),
    Case("another's socket in the place of ours: serve", RegistrationStep.BIND, REGISTERED, ours=SocketId(1, 11, 100)),
    Case("our socket was relabeled: still ours", RegistrationStep.WAIT, REGISTERED, ours=SocketId(1, 10, 999)),
    Case(
        "no stream for a moment: give the kubelet time",
        RegistrationStep.WAIT,
        RegistrationState(OURS, KUBELET, unwatched_since=NOW - 1.9),
    ),
    Case(
        "no stream for two seconds: register again",
        RegistrationStep.REGISTER,
        RegistrationState(OURS, KUBELET, unwatched_since=NOW - 2),
    ),
    Case(
        "three registrations brought no listener: wait longer",
        RegistrationStep.WAIT,
        RegistrationState(OURS, KUBELET, unwatched_since=NOW - 15.9, unwatched_registrations=3),
    ),
    Case(
        "hundreds of registrations brought no listener: still once a minute or so",
        RegistrationStep.REGISTER,
        RegistrationState(OURS, KUBELET, unwatched_since=NOW - 64, unwatched_registrations=500),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_next_step(case: Case) -> None:
    step = next_step(case.standing, wanted=case.wanted, ours=case.ours, kubelet=case.kubelet, now=NOW)
    assert step is case.want


def test_the_sockets_name_has_the_resource_in_it() -> None:
    assert socket_name("gpufleet.dev/gpu") == "gpufleet.dev_gpu.sock"
