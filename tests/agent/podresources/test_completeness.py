"""Which lists of a kubelet that has just started name everybody."""

from pathlib import Path

import pytest

from gpufleet_agent.podresources.completeness import SETTLE_SECONDS, CompletenessCheck
from gpufleet_agent.podresources.listing import Listing
from gpufleet_testing.agent.objects import listed

OWN = ("ml", "agent")


class Kubelet:
    """Its socket, and results at loop times that a test sets."""

    def __init__(self, folder: Path, own_pod: tuple[str, str] | None = OWN, age: float = 3600) -> None:
        self.socket = folder / "kubelet.sock"
        self.age = age
        self.starts = 0
        self.start()
        self.completeness = CompletenessCheck(
            self.socket, own_pod, clock=lambda: self.socket.stat().st_mtime + self.age
        )

    def start(self) -> None:
        self.starts += 1
        fresh = self.socket.with_suffix(f".{self.starts}")
        fresh.touch()
        fresh.replace(self.socket)

    def check(self, listing: Listing, now: float) -> bool:
        return self.completeness.check(listing, now)


@pytest.fixture
def full() -> Listing:
    return (listed("agent"), listed("train-0", "GPU-0"))


def test_list_of_a_kubelet_older_than_the_agent_is_complete(tmp_path: Path, full: Listing) -> None:
    kubelet = Kubelet(tmp_path)
    assert kubelet.completeness.problem is not None
    assert kubelet.check(full, 0.0)
    assert kubelet.completeness.problem is None


def test_a_kubelet_that_started_just_before_the_agent_does_not(tmp_path: Path, full: Listing) -> None:
    kubelet = Kubelet(tmp_path, age=1)
    assert not kubelet.check(full, 100.0)
    assert not kubelet.check(full, 100.0 + SETTLE_SECONDS - 1)
    assert kubelet.check(full, 100.0 + SETTLE_SECONDS)


def test_a_clock_that_was_set_back_delays_no_more_than_that(tmp_path: Path, full: Listing) -> None:
    kubelet = Kubelet(tmp_path, age=-1e6)
    assert not kubelet.check(full, 0.0)
    assert kubelet.check(full, SETTLE_SECONDS)


@pytest.mark.parametrize("own_pod", [OWN, None])
def test_each_kubelet_start_needs_time_regardless_of_the_clock(
    tmp_path: Path, full: Listing, own_pod: tuple[str, str] | None
) -> None:
    kubelet = Kubelet(tmp_path, own_pod)
    assert kubelet.check(full, 0.0)
    for began in (100.0, 200.0):
        kubelet.start()
        assert not kubelet.check(full, began)
        assert not kubelet.check(full, began + SETTLE_SECONDS - 1)
        assert kubelet.check(full, began + SETTLE_SECONDS)
        assert kubelet.check(full, began + SETTLE_SECONDS + 1)


def test_the_time_begins_when_the_agents_own_pod_is_listed_however_late(tmp_path: Path, full: Listing) -> None:
    kubelet = Kubelet(tmp_path)
    kubelet.check(full, 0.0)
    kubelet.start()
    static = (listed("static"),)
    assert not kubelet.check(static, 10.0)
    assert not kubelet.check(static, 10_000.0)
    assert "lacks the agent's pod ml/agent" in str(kubelet.completeness.problem)
    assert not kubelet.check(full, 10_001.0)
    assert "less than 10 s" in str(kubelet.completeness.problem)
    assert kubelet.check(full, 10_001.0 + SETTLE_SECONDS)


def test_also_a_kubelet_that_has_run_for_long_may_have_no_apiserver(tmp_path: Path, full: Listing) -> None:
    kubelet = Kubelet(tmp_path)
    assert not kubelet.check((), 0.0)
    assert kubelet.check(full, 1.0)


def test_missing_socket_is_no_evidence(tmp_path: Path, full: Listing) -> None:
    kubelet = Kubelet(tmp_path)
    kubelet.check(full, 0.0)
    kubelet.socket.unlink()
    assert not kubelet.check(full, 1.0)
    assert "No such file" in str(kubelet.completeness.problem)
    kubelet.start()
    assert not kubelet.check(full, 2.0)
    assert kubelet.check(full, 2.0 + SETTLE_SECONDS)
