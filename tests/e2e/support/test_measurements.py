from gpufleet_e2e.support.measurements import Summary, per_minute, writes

PAGE = """\
# HELP apiserver_request_total Counter of apiserver requests
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",dry_run="",group="gpufleet.dev",resource="gputelemetries",subresource="status",verb="APPLY"} 12
apiserver_request_total{code="201",dry_run="",group="gpufleet.dev",resource="gputelemetries",subresource="status",verb="APPLY"} 1
apiserver_request_total{code="422",dry_run="",group="gpufleet.dev",resource="gputelemetries",subresource="",verb="PATCH"} 7
apiserver_request_total{code="200",dry_run="All",group="",resource="pods",subresource="",verb="PATCH"} 5
apiserver_request_total{code="201",dry_run="",group="",resource="pods",subresource="",verb="POST"} 3
apiserver_request_total{code="200",dry_run="",group="",resource="pods",subresource="",verb="LIST"} 99
other_total{verb="POST"} 4
"""  # noqa: E501 - lines as the apiserver writes them


def test_only_accepted_writes_that_were_meant_count() -> None:
    assert writes(PAGE) == {"gpufleet.dev/gputelemetries/status": 13, "pods": 3}


def test_growth_is_per_minute() -> None:
    assert per_minute({"a": 10, "b": 3}, {"a": 14, "b": 3, "c": 1}, 120) == {"a": 2.0, "c": 0.5}


def test_a_summary_has_the_median() -> None:
    assert Summary.of([3.0, 1.0, 10.0]) == Summary(p50=3.0, min=1.0, max=10.0, count=3)
