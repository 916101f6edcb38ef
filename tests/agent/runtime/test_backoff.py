from gpufleet_agent.runtime.backoff import backoff


def test_backoff_doubles_up_to_its_limit_with_half_of_it_at_random() -> None:
    failures = (1, 2, 3, 6, 100)
    assert [backoff(count, 1.0, first=1.0, longest=30.0) for count in failures] == [1, 2, 4, 30, 30]
    assert [backoff(count, 0.0, first=1.0, longest=30.0) for count in failures] == [0.5, 1, 2, 15, 15]
