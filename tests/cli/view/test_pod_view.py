"""Pods in words."""

import pytest

from gpufleet_api.names import WAITING_FOR_ANNOTATION
from gpufleet_cli.view.pod_view import pod_view
from gpufleet_operator.report.gated_pods import WaitingFor


@pytest.mark.parametrize("value", WaitingFor)
def test_each_reason_to_wait_is_said_in_words(value: WaitingFor) -> None:
    pod = pod_view({"metadata": {"annotations": {WAITING_FOR_ANNOTATION: value}}})
    assert pod.waiting_for == value, "for tools"
    assert pod.waits_for != value


def test_reason_of_a_newer_operator_is_shown_as_it_is() -> None:
    assert pod_view({"metadata": {"annotations": {WAITING_FOR_ANNOTATION: "Moon"}}}).waits_for == "Moon"
