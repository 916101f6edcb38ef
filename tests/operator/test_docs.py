"""docs/reference/operator.md says what the code does: flags, events, conditions, series."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from gpufleet_operator.decide.replicas import Fault, Wait
from gpufleet_operator.runtime.metrics import Metrics
from gpufleet_operator.settings import parse

PAGE = (Path(__file__).parents[2] / "docs/reference/operator.md").read_text(encoding="utf-8")


def test_every_series_is_listed() -> None:
    registry = CollectorRegistry()
    Metrics(registry)

    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
        if family.name.startswith("gpufleet_")
    }

    assert {name for name in names if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize("fault", Fault)
def test_every_reason_to_delete_a_pod_is_listed(fault: Fault) -> None:
    assert f"`{fault}`" in PAGE


@pytest.mark.parametrize("wait", [w for w in Wait if w is not Wait.POD])
def test_every_reason_of_a_gated_pod_is_listed(wait: Wait) -> None:
    assert f"`{wait}`" in PAGE


def test_every_flag_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])

    flags = {word.strip("[],") for word in capsys.readouterr().out.split() if word.strip("[],").startswith("--")}

    assert {flag for flag in flags - {"--help"} if f"`{flag}`" not in PAGE} == set()


def test_every_reason_of_a_condition_is_listed() -> None:
    source = (Path(__file__).parents[2] / "operator/gpufleet_operator/status/conditions.py").read_text(encoding="utf-8")
    reasons = {part.split('"')[1] for call in ("_yes(", "_no(") for part in source.split(call)[1:] if part[0] == '"'}

    assert len(reasons) > 15
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE} == set()
