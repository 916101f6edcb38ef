import pytest

from gpufleet_testbed.config import Provider
from gpufleet_testbed.lifecycle import choose_provider
from gpufleet_testing.testbed import FakeRunner


@pytest.mark.parametrize("wanted", [Provider.LOCAL, Provider.KIND])
def test_explicit_provider_needs_no_docker(wanted: Provider, runner: FakeRunner) -> None:
    assert choose_provider(wanted, runner) is wanted
    assert runner.calls == []


def test_kind_is_chosen_where_docker_answers(runner: FakeRunner) -> None:
    assert choose_provider(Provider.AUTO, runner) is Provider.KIND
    assert runner.calls == [["docker", "info"]]


def test_local_is_chosen_where_docker_does_not_answer(runner: FakeRunner) -> None:
    runner.answer("docker", "info", status=1)
    assert choose_provider(Provider.AUTO, runner) is Provider.LOCAL
