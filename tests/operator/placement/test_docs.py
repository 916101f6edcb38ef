"""docs/concepts/placement.md names every reason in the engine's order, and the score's weights and bounds."""

import re
from pathlib import Path

from gpufleet_operator.placement.fleet.terms import COOL_CELSIUS, HOT_CELSIUS
from gpufleet_operator.placement.model import FilterReason, ScoreWeights

PAGE = (Path(__file__).parents[3] / "docs/concepts/placement.md").read_text(encoding="utf-8")


def test_every_reason_is_documented_in_order() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(FilterReason)


def test_the_terms_are_those_of_the_score() -> None:
    weights = ScoreWeights()
    rows = dict(re.findall(r"^\| (memory|utilization|temperature|power) \|.*\| (\d+) \|$", PAGE, re.MULTILINE))
    assert {name: int(weight) for name, weight in rows.items()} == {name: getattr(weights, name) for name in rows}
    assert len(rows) == 4
    assert f"| {COOL_CELSIUS} °C or less | {HOT_CELSIUS} °C or more |" in PAGE
