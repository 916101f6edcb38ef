"""Which exceptions a pass survives."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from gpufleet_operator.decide.assessment.workload_guard import RepeatPassError, WorkloadGuard
from gpufleet_operator.decide.decide import decide
from gpufleet_operator.fleet.kept_fleet import ContestedDeviceError
from gpufleet_operator.report import gated_pods
from gpufleet_testing.operator import make


def inverse(number: int) -> float:
    return 1 / number


def test_subject_that_fails_is_left_out_and_noted() -> None:
    guard = WorkloadGuard()

    assert list(guard.each(inverse, [1, 0, 2], str)) == [1.0, 0.5]
    assert guard.errors == {"0": "spec: Internal error: ZeroDivisionError: division by zero"}
    assert "in inverse" in guard.tracebacks["0"]


@pytest.mark.parametrize("error", [RepeatPassError, ContestedDeviceError])
@pytest.mark.parametrize(
    "run",
    [
        lambda guard, function: guard.call("uid", lambda: function(1)),
        lambda guard, function: list(guard.each(function, [1], str)),
    ],
    ids=["call", "each"],
)
def test_exception_that_repeats_the_pass_is_raised(
    run: Callable[[WorkloadGuard, Callable[[int], None]], object], error: type[Exception]
) -> None:
    def failing(_: int) -> None:
        raise error

    guard = WorkloadGuard()
    with pytest.raises(error):
        run(guard, failing)
    assert not guard.errors


def test_pod_without_a_workload_is_named_by_its_own_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    pod, good = make.pod("gone", created=make.NOW - timedelta(seconds=10)), make.pod()

    def failing(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(gated_pods, "_without_replica", failing)
    actions = decide(make.snapshot(make.workload(), pod, good, make.telemetry()))

    assert list(actions.failed_decisions) == [pod.uid]
    assert [r.pod_uid for r in actions.releases] == [good.uid]
