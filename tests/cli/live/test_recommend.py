"""`gpufleet recommend` prints what runs were promised and used, and a recommendation."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpufleet_cli.cluster.kinds import DEMANDS
from gpufleet_testing.cli.clusters import RecordedCluster
from gpufleet_testing.cli.runner import run_cli

USED: dict[str, Any] = {
    "observedAt": "2026-01-01T00:00:00Z",
    "totalRuns": 20,
    "countedRuns": 14,
    "promisedMiB": 40960,
    "medianMiB": 9000,
    "p80MiB": 11000,
    "maxMiB": 12595,
    "recommendedMiB": 14000,
}
SENTENCE = "promised 40 GiB, used at most 12.3 GiB in 14 runs; memoryMiB: 14000 is enough"


def demand(owner: str, kind: str = "GPUWorkload", namespace: str = "team", **status: object) -> dict[str, Any]:
    spec = {"owner": {"kind": kind, "name": owner}, "container": "main", "image": "example"}
    return {
        "apiVersion": "gpufleet.dev/v1alpha1",
        "kind": "GPUDemand",
        "metadata": {"namespace": namespace, "name": f"{kind.lower()}-{owner}-main-12345678"},
        "spec": spec,
        "status": status or USED,
    }


@pytest.fixture
def recorded(cluster: RecordedCluster) -> RecordedCluster:
    cluster.put(DEMANDS, demand("train"), demand("web", "Deployment", **{**USED, "maxMiB": 50000}), namespace="team")
    return cluster


def test_table_has_a_sentence_for_each_template(recorded: RecordedCluster) -> None:
    done = run_cli("recommend")
    assert (done.code, done.err) == (0, "")
    header, web, train = done.out.splitlines()
    assert header.split() == ["OWNER", "CONTAINER", "RECOMMENDATION"]
    assert (train.split()[:2], train.endswith(SENTENCE)) == (["GPUWorkload/train", "main"], True)
    assert web.startswith("Deployment/web")


@pytest.mark.parametrize("name", ["train", "train-x7k2p", "team/train", "gpuworkload/train", "GPUWorkload/train"])
def test_name_may_be_that_of_one_run(recorded: RecordedCluster, name: str) -> None:
    done = run_cli("recommend", name, "-o", "name")
    assert done.out.splitlines() == ["gpudemand.gpufleet.dev/gpuworkload-train-main-12345678"]


def test_owner_as_the_table_prints_it_names_its_kind(recorded: RecordedCluster) -> None:
    done = run_cli("recommend", "Deployment/web", "-o", "name")
    assert done.out.splitlines() == ["gpudemand.gpufleet.dev/deployment-web-main-12345678"]
    assert run_cli("recommend", "StatefulSet/web").code == 2


def test_unknown_owner_is_an_error_with_a_close_name(recorded: RecordedCluster) -> None:
    done = run_cli("recommend", "trein")
    assert done.code == 2
    assert 'no run of "trein" in namespace team on a shared GPU was recorded: did you mean train' in done.err


def test_json_and_yaml_have_all_numbers(recorded: RecordedCluster) -> None:
    (found,) = json.loads(run_cli("recommend", "train", "-o", "json").out)
    assert {
        name: found[name] for name in ("runs", "totalRuns", "promisedMiB", "maxMiB", "recommendedMiB", "message")
    } == {
        "runs": 14,
        "totalRuns": 20,
        "promisedMiB": 40960,
        "maxMiB": 12595,
        "recommendedMiB": 14000,
        "message": SENTENCE,
    }
    assert yaml.safe_load(run_cli("recommend", "train", "-o", "yaml").out) == [found]


def test_wide_table_and_other_namespaces(cluster: RecordedCluster) -> None:
    cluster.put(DEMANDS, demand("train"), demand("far", namespace="other"))
    done = run_cli("recommend", "-A", "-o", "wide", "--no-headers")
    far, train = (line.split() for line in done.out.splitlines())
    assert (far[:2], train[:2]) == (["other", "GPUWorkload/far"], ["team", "GPUWorkload/train"])
    assert train[-8:] == ["14", "20", "40960", "9000", "11000", "12595", "14000", "example"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({"promisedMiB": 12288, "maxMiB": 21811, "recommendedMiB": 24000, "countedRuns": 1},
                     "promised 12 GiB, used at most 21.3 GiB in 1 run; memoryMiB: 24000 is needed", id="exceeded"),
        pytest.param({"promisedMiB": 600, "maxMiB": 580, "recommendedMiB": 640, "countedRuns": 3},
                     "promised 600 MiB, used at most 580 MiB in 3 runs; keep memoryMiB", id="as promised"),
        pytest.param({"promisedMiB": 600, "observedAt": "2026-01-01T00:00:00Z"},
                     "no run was observed for long enough yet", id="nothing counts"),
    ],
)  # fmt: skip
def test_sentence_fits_the_numbers(cluster: RecordedCluster, status: dict[str, Any], expected: str) -> None:
    cluster.put(DEMANDS, demand("train", **status), namespace="team")
    assert run_cli("recommend", "--no-headers").out.strip().endswith(expected)


def test_saved_objects_are_read_without_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "demands.yaml").write_text(yaml.safe_dump_all([demand("train")]))
    assert SENTENCE in run_cli("recommend", "--from", str(tmp_path)).out


def test_saved_objects_below_a_folder_are_read(tmp_path: Path) -> None:
    below = tmp_path / "2026-11-24" / "team"
    below.mkdir(parents=True)
    (below / "demands.yaml").write_text(yaml.safe_dump_all([demand("train")]))
    hidden = tmp_path / ".git"
    hidden.mkdir()
    (hidden / "config.yaml").write_text("not: an object")
    done = run_cli("recommend", "--from", str(tmp_path), "-o", "name")
    assert (done.code, done.out) == (0, "gpudemand.gpufleet.dev/gpuworkload-train-main-12345678\n")


def test_empty_namespace_gives_a_note(cluster: RecordedCluster) -> None:
    cluster.put(DEMANDS, namespace="team")
    done = run_cli("recommend", "--no-headers")
    assert done.code == 0
    assert "no run on a shared GPU was recorded in namespace team: see -A" in done.err
