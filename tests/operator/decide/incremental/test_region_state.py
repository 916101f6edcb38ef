"""The state of a region is taken out of the whole state, and put back into it."""

from dataclasses import fields, replace
from datetime import timedelta

from gpufleet_operator.decide.incremental import region_state
from gpufleet_operator.decide.incremental.region_state import StateKeys, merge, restricted, thawed
from gpufleet_operator.model.state_types import Backoff, PassState, Rejections, Reported
from gpufleet_testing.operator import make

BACKOFF = Backoff(1, make.NOW, make.NOW + timedelta(seconds=1))
STATE = PassState(
    rejections=Rejections(backoffs={("w", 0, "n"): BACKOFF, ("other", 0, "n"): BACKOFF}, counted_pods=frozenset({"p"})),
    write_backoffs={"reserve/n": BACKOFF},
    first_generation={"p": ("n", 1), "q": ("n", 2)},
    seen_holding=frozenset({"p", "q"}),
    status_written={"w": make.NOW, "other": make.NOW},
    reported={"explain/p": Reported(make.NOW), "explain/q": Reported(make.NOW)},
)
KEYS = StateKeys(frozenset({"w"}), frozenset({"p", "gone"}), frozenset({"n"}), frozenset({"explain/p"}))


def test_each_field_of_the_state_has_one_kind_of_key() -> None:
    """A new field needs an entry: without one it would be lost or never dropped."""
    kinds = ("BY_WORKLOAD", "BY_REPLICA", "BY_POD", "BY_NODE", "BY_REPORT", "WHOLE")
    listed = [name for kind in kinds for name in getattr(region_state, kind)]
    existing = {f.name for f in (*fields(PassState), *fields(Rejections))} - {"rejections"}
    assert sorted(listed) == sorted(existing)


def test_part_of_the_state_has_the_entries_of_the_region() -> None:
    part = restricted(thawed(STATE), KEYS)

    assert part.first_generation == {"p": ("n", 1)}
    assert part.seen_holding == {"p"}
    assert part.rejections.backoffs.keys() == {("w", 0, "n")}
    assert part.reported.keys() == {"explain/p"}
    assert part.write_backoffs == STATE.write_backoffs


def test_merged_state_has_the_region_after_the_pass_and_the_rest_as_before() -> None:
    part = restricted(STATE, KEYS)
    after = replace(part, first_generation={"gone": ("n", 3)}, seen_holding=frozenset(), rejections=Rejections())

    merged = merge(thawed(STATE), KEYS, after)

    assert merged.first_generation == {"q": ("n", 2), "gone": ("n", 3)}
    assert merged.seen_holding == {"q"}
    assert merged.rejections.backoffs.keys() == {("other", 0, "n")}
    assert merged.status_written == STATE.status_written


def test_state_that_was_thawed_is_not_changed_by_a_merge() -> None:
    before = STATE.first_generation.copy()  # type: ignore[attr-defined] # a dict

    merge(thawed(STATE), KEYS, PassState())

    assert STATE.first_generation == before
