"""Tables from fixed evidence: what a reader sees, cell by cell."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from gpufleet_e2e.demo import tables
from gpufleet_e2e.demo.terminal import StepTime
from gpufleet_e2e.proof import FleetEvidence, Source, Statement, WorkloadEvidence


def drawn(what: RenderableType, width: int = 120) -> str:
    stream = StringIO()
    Console(file=stream, width=width, highlight=False).print(what)
    return stream.getvalue()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def row(text: str, *words: str) -> list[str]:
    """The cells of the one line that holds these words."""
    found = [line for line in text.splitlines() if all(word in line for word in words)]
    assert len(found) == 1, text
    return cells(found[0])


def test_the_fleet_shows_each_gpu_with_its_holder(fleet: FleetEvidence) -> None:
    text = drawn(tables.fleet_table(fleet, 120))
    assert row(text, "11111111") == [
        "node-1", "0", "11111111", "H100 80GB HBM3", "2.0 / 80", "3%", "41 C", "-", "demo/train-0-abc",
    ]  # fmt: skip
    assert row(text, "22222222") == ["1", "22222222", "H100 80GB HBM3", "2.0 / 80", "3%", "95 C", "71 W", "free"]


def test_every_source_has_a_legend_of_one_line() -> None:
    lines = drawn(tables.legend_table(list(Source)), width=78).splitlines()
    assert [line.split()[0] for line in lines] == [tables.COLUMNS[source] for source in Source]


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        ("hot-gpu-only-0-jj5bx2", "hot-gpu-only-0"),
        ("distribution-2-rv6sn6", "distribution-2"),
        ("another-users-pod", "another-users-pod"),
        ("a-name-that-is-much-longer-than-there-is-room-0-jj5bx2", "a-name-that-is-mu…"),
    ],
)
def test_narrow_table_shortens_names_and_keeps_numbers(fleet: FleetEvidence, pod: str, said: str) -> None:
    held = replace(fleet, holdings=(replace(fleet.holdings[0], pod=pod),))
    text = drawn(tables.fleet_table(held, 80, home="demo", mark="GPU-22222222-aaaa"), width=78)
    cells_of = row(text, "11111111")
    assert cells_of[:-1] == ["node-1", "0", "11111111", "H100", "2.0 / 80", "3%", "41 C", "-"]
    assert cells_of[-1].rstrip() == said
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 78


def test_narrow_fleet_table_shortens_models_and_holders(fleet: FleetEvidence) -> None:
    text = drawn(tables.fleet_table(fleet, 78, home="demo"), width=78)
    assert row(text, "11111111")[3:] == ["H100", "2.0 / 80", "3%", "41 C", "-", "train-0-abc"]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 78


def test_a_shared_device_is_held_by_so_many(sharers: tuple[list[WorkloadEvidence], FleetEvidence]) -> None:
    text = drawn(tables.fleet_table(sharers[1], 78, home="demo"), width=78)
    assert cells(text.splitlines()[2])[-1] == "shared by 3"
    assert row(text, "22222222")[-1] == "free"


def test_sharing_table_shows_slots_and_promised_memory(
    sharers: tuple[list[WorkloadEvidence], FleetEvidence],
) -> None:
    found, fleet = sharers
    text = drawn(tables.sharing_table(found, fleet), width=78)
    assert row(text, "shared-1") == ["shared-1", "11111111", "1", "8,000", "8,000", "8,000", "yes"]
    assert row(text, "shared-inference-0")[1:] == ["11111111", "2", "12,000", "12,000", "12,000", "yes"]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 78


def test_differing_promise_is_highlighted(
    sharers: tuple[list[WorkloadEvidence], FleetEvidence],
) -> None:
    (_, second), fleet = sharers
    reported = {Source.RESERVATION: 12_000, Source.ENVIRONMENT: None}
    wrong = replace(second, replicas=(replace(second.replicas[0], promised_mib=reported),))
    assert row(drawn(tables.sharing_table([wrong], fleet)), "12,000")[3:] == ["12,000", "12,000", "-", "NO"]


def test_what_is_not_reported_is_a_dash_not_a_zero(fleet: FleetEvidence) -> None:
    text = drawn(tables.fleet_table(fleet, 120))
    assert row(text, "33333333")[4:6] == ["2.0 / 80", "-"]
    assert row(text, "44444444")[3:5] == ["-", "3%"]


def test_unhealthy_and_marked_gpus_are_highlighted(fleet: FleetEvidence) -> None:
    sick = replace(fleet, gpus=(replace(fleet.gpus[1], healthy=False),))
    assert row(drawn(tables.fleet_table(sick, 120, mark="GPU-22222222-aaaa")), "22222222")[1:3] == ["> 1", "22222222"]
    assert "UNHEALTHY" in drawn(tables.fleet_table(sick, 120))


def test_proof_table_has_a_column_for_each_source(fleet: FleetEvidence, workload: WorkloadEvidence) -> None:
    text = drawn(tables.proof_table(workload, fleet))
    assert row(text, "node-1") == ["0", "node-1", *["11111111"] * 6, "yes"]
    assert row(text, "node-2") == ["1", "node-2", *["33333333"] * 6, "yes"]


def test_claims_have_a_column_if_a_pod_has_one(fleet: FleetEvidence, workload: WorkloadEvidence) -> None:
    first, *others = workload.replicas
    claimed = replace(first, says={**first.says, Source.CLAIM: Statement(("GPU-11111111-aaaa",))})
    text = drawn(tables.proof_table(replace(workload, replicas=(claimed, *others)), fleet))
    assert row(text, "node-1") == ["0", "node-1", *["11111111"] * 7, "yes"]
    assert row(text, "node-2") == ["1", "node-2", *["33333333"] * 6, "-", "yes"]


def test_the_proof_fits_a_narrow_screen_whole(fleet: FleetEvidence, workload: WorkloadEvidence) -> None:
    text = drawn(tables.proof_table(workload, fleet), width=78)
    assert row(text, "node-1") == ["0", "node-1", *["11111111"] * 6, "yes"]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 78


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        (Statement(("GPU-22222222-aaaa",)), "22222222"),
        (Statement(None, "not set"), "nothing"),
        (Statement(()), "none"),
    ],
)
def test_a_source_that_differs_turns_the_verdict(
    fleet: FleetEvidence, workload: WorkloadEvidence, statement: Statement, shown: str
) -> None:
    first = workload.replicas[0]
    spoilt = replace(first, says={**first.says, Source.ENVIRONMENT: statement})
    text = drawn(tables.proof_table(replace(workload, replicas=(spoilt,)), fleet))
    assert row(text, "node-1") == ["0", "node-1", *["11111111"] * 3, shown, *["11111111"] * 2, "NO"]


def test_a_replica_without_devices_is_never_a_proof(fleet: FleetEvidence, workload: WorkloadEvidence) -> None:
    empty = replace(workload.replicas[0], says=dict.fromkeys(Source, Statement(())))
    assert "NO" in drawn(tables.proof_table(replace(workload, replicas=(empty,)), fleet))


def test_the_shares_show_range_size_and_the_printed_line(workload: WorkloadEvidence) -> None:
    text = drawn(tables.shard_table(workload))
    assert row(text, "50..100") == ["1", "50", "100", "50", "50.0%", "shard 50..100 of 100", "yes"]
    assert "100 items, 0 unassigned" in text


def test_differing_shard_changes_only_its_own_row(workload: WorkloadEvidence) -> None:
    first = workload.replicas[0]
    spoilt = replace(first, shard=replace(first.shard, log=(0, 49)))
    text = drawn(tables.shard_table(replace(workload, replicas=(spoilt, workload.replicas[1]))))
    assert row(text, "0..50")[-1] == "NO"
    assert row(text, "50..100")[-1] == "yes"


def test_shares_with_a_gap_turn_every_verdict(workload: WorkloadEvidence) -> None:
    text = drawn(tables.shard_table(replace(workload, items=120)))
    assert "yes" not in text


def test_scores_are_shown_next_to_each_other(fleet: FleetEvidence, workload: WorkloadEvidence) -> None:
    picks = [("before", workload.replicas[0]), ("after", workload.replicas[1])]
    text = drawn(tables.score_table(picks, fleet))
    assert row(text, "before") == ["before", "node-1", "0", "990", "900"]
    assert row(text, "after") == ["after", "node-2", "0", "990", "899"]


def test_scores_of_all_terms_fit_a_narrow_screen(fleet: FleetEvidence, workload: WorkloadEvidence) -> None:
    terms = ("memory", "power", "temperature", "total", "utilization")
    pick = replace(workload.replicas[0], score=dict.fromkeys(terms, 1000))
    text = drawn(tables.score_table([("before the heat", pick)], fleet), width=78)
    assert "…" not in text
    assert cells(text.splitlines()[0]) == ["node", "GPU", "memory", "power", "temperature", "utilization", "total"]


def test_uuids_that_begin_alike_get_more_digits() -> None:
    short = tables.namer(["GPU-12345678-0001", "GPU-12345678-0002", "GPU-12345678-0002"])
    assert short("GPU-12345678-0001") == "12345678-0001"


@pytest.mark.parametrize(("number", "words"), [(0, "0 devices"), (1, "1 device"), (2, "2 devices")])
def test_one_thing_is_no_plural(number: int, words: str) -> None:
    assert tables.counted(number, "device") == words


def test_the_times_add_up_to_a_total_line() -> None:
    text = drawn(tables.times_table([StepTime("Start", 12.34)], 12.5))
    assert row(text, "Start") == ["1 Start", "12.3"]
    assert row(text, "total") == ["total", "12.5"]
