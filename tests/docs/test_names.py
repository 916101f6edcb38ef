"""docs/reference lists every reason, code and name that users see."""

from enum import StrEnum

import pytest

from gpufleet_agent.overuse.monitor import MEMORY_OVERUSE as OVERUSE
from gpufleet_agent.plugin.types import RejectionReason
from gpufleet_api import names
from gpufleet_api.generate import ROOT
from gpufleet_operator.model.replica import RemovalReason, WaitReason
from gpufleet_operator.report.gated_pods import WaitingFor


def page(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", RemovalReason)
def test_operator_page_lists_reason_to_delete_a_pod(reason: RemovalReason) -> None:
    assert f"| `{reason}` |" in page("operator.md")


@pytest.mark.parametrize("reason", [*RejectionReason, OVERUSE])
def test_events_page_lists_reason(reason: StrEnum | str) -> None:
    assert f"| `{reason}` |" in page("events.md")


@pytest.mark.parametrize("wait", sorted({*WaitReason} - {WaitReason.POD, WaitReason.OWNER}))
def test_conditions_page_lists_what_a_gated_pod_waits_for(wait: WaitReason) -> None:
    assert f"| `{wait}` |" in page("conditions.md")


@pytest.mark.parametrize("wait", WaitingFor)
def test_conditions_page_lists_every_value_of_the_annotation(wait: WaitingFor) -> None:
    assert f"| `{wait}` |" in page("conditions.md")


def test_conditions_page_lists_every_reason_twice() -> None:
    paths = [f"status/{name}.py" for name in ("conditions", "ready", "outcome")] + ["decide/lifecycle/run_policy.py"]
    source = "".join((ROOT / "operator/gpufleet_operator" / path).read_text(encoding="utf-8") for path in paths)
    calls = ("_true(", "_false(", "Outcome.success(", "Outcome.failure(")
    reasons = {part.split('"')[1] for call in calls for part in source.split(call)[1:] if part[0] == '"'}
    table, _, meanings = page("conditions.md").partition("| reason | meaning |")

    assert len(reasons) > 15
    assert {reason for reason in reasons if f"`{reason}`" not in table or f"`{reason}`" not in meanings} == set()


def test_names_page_lists_every_name_of_the_api() -> None:
    prefixed = [value for value in vars(names).values() if isinstance(value, str) and value.startswith(names.GROUP)]
    text = page("labels-and-annotations.md") + page("api.md")
    assert [name for name in prefixed if name not in text] == []


def test_agent_page_lists_every_environment_variable() -> None:
    variables = [value for key, value in vars(names).items() if key.startswith("ENV_") and key != "ENV_PREFIX"]
    assert [name for name in variables if f"`{name}`" not in page("agent.md")] == []
