"""Replica indices of pods with other owners."""

from dataclasses import replace

from gpufleet_operator.decide.adoption.indices import index_pods, known_indices
from gpufleet_operator.model.objects import Pod
from gpufleet_testing.operator import owned


def named(found: dict[int, Pod]) -> dict[int, str]:
    return {index: pod.name for index, pod in sorted(found.items())}


def test_pods_without_rank_get_the_lowest_free_index_by_age() -> None:
    pods = [owned.pod(name) for name in ("web-c", "web-a", "web-b")]

    found = index_pods(pods, {"uid-web-c": 0}, 1024, closed=False)

    assert named(dict(found.by_index)) == {0: "web-c", 1: "web-a", 2: "web-b"}


def test_index_of_a_deleted_pod_is_given_to_its_replacement() -> None:
    pods = [owned.pod("web-a"), owned.pod("web-c"), owned.pod("web-d")]

    found = index_pods(pods, {"uid-web-a": 0, "uid-web-c": 2}, 1024, closed=False)

    assert named(dict(found.by_index)) == {0: "web-a", 1: "web-d", 2: "web-c"}


def test_rank_of_one_number_is_the_index() -> None:
    pods = [owned.pod("db-1", rank=(1,)), owned.pod("db-0", rank=(0,)), owned.pod("db-4", rank=(4,))]

    found = index_pods(pods, {}, 1024, closed=False)

    assert named(dict(found.by_index)) == {0: "db-0", 1: "db-1", 4: "db-4"}


def test_same_rank_of_two_owners_gets_the_next_free_index() -> None:
    pods = [owned.pod("a-0", rank=(0,)), owned.pod("b-1", rank=(0,))]

    found = index_pods(pods, {}, 1024, closed=False)

    assert named(dict(found.by_index)) == {0: "a-0", 1: "b-1"}


def test_same_rank_in_a_gang_is_surplus() -> None:
    pods = [owned.pod("a-0", rank=(0,)), owned.pod("b-1", rank=(0,))]

    found = index_pods(pods, {}, 4, closed=True)

    assert named(dict(found.by_index)) == {0: "a-0"}
    assert [pod.name for pod in found.surplus] == ["b-1"]


def test_completion_index_beyond_the_limit_gets_a_free_index() -> None:
    found = index_pods([owned.pod("job", rank=(99_000,))], {}, 1024, closed=False)

    assert named(dict(found.by_index)) == {0: "job"}


def test_ranks_of_several_numbers_are_sorted_when_all_pods_exist() -> None:
    pods = [
        owned.pod("a", rank=(1, 0)),
        owned.pod("b", rank=(0, 1)),
        owned.pod("c", rank=(1, 1)),
        owned.pod("d", rank=(0, 0)),
    ]

    found = index_pods(pods, {}, 4, closed=True)

    assert named(dict(found.by_index)) == {0: "d", 1: "b", 2: "a", 3: "c"}


def test_replaced_pod_of_sorted_ranks_returns_to_its_index() -> None:
    ranks = {"a": (0, 0), "b": (0, 1), "c": (1, 0), "d": (1, 1)}
    pods = [owned.pod(name, rank=rank) for name, rank in ranks.items()]
    known = {"uid-a": 0, "uid-d": 3}

    found = index_pods([*pods[:1], replace(pods[2], uid="new"), pods[3]], known, 4, closed=True)

    assert found.by_index[1].uid == "new" or found.by_index[2].uid == "new"
    both = index_pods([pods[0], pods[1], replace(pods[2], uid="new"), pods[3]], known, 4, closed=True)
    assert named(dict(both.by_index)) == {0: "a", 1: "b", 2: "c", 3: "d"}


def test_pods_beyond_the_size_are_surplus() -> None:
    found = index_pods([owned.pod(name) for name in ("a", "b", "c")], {}, 2, closed=True)

    assert [pod.name for pod in found.surplus] == ["c"]


def test_reservation_decides_the_index_before_the_status() -> None:
    pod = owned.released("a", rank=(3,))

    assert known_indices([pod], {pod.uid: 1}, {pod.uid: 2}) == {pod.uid: 1}
    assert known_indices([pod], {}, {pod.uid: 2}) == {pod.uid: 2}


def test_status_decides_the_index_of_gated_pods_without_rank_only() -> None:
    plain, ranked = owned.pod("a"), owned.pod("b", rank=(1, 0))

    assert known_indices([plain, ranked], {}, {plain.uid: 5, ranked.uid: 6}) == {plain.uid: 5}
