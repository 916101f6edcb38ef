from http import HTTPStatus

from prometheus_client import CollectorRegistry, Gauge

from gpufleet_agent.metrics.probes import Pulse, probe, scrape


def test_a_probe_names_what_is_wrong() -> None:
    handle = probe({"a": lambda: None, "b": lambda: "on fire"})
    answer = handle({})
    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.body == b"a: ok\nb: on fire\n"


def test_a_probe_with_nothing_wrong() -> None:
    answer = probe({"a": lambda: None})({})
    assert answer.status is HTTPStatus.OK
    assert answer.body == b"a: ok\n"


def test_a_loop_that_does_not_come_round_for_a_minute_is_hanging_until_it_does() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    assert pulse.check() is None
    slow, quick = pulse.of("slow"), pulse.of("quick")
    now[0] = 61
    quick()
    assert pulse.check() == "hanging: slow"
    slow()
    assert pulse.check() is None


def test_a_scrape_is_in_the_format_that_was_asked_for() -> None:
    registry = CollectorRegistry()
    Gauge("a", "Help.", registry=registry).set(1)
    plain = scrape(registry)({})
    assert plain.content_type.startswith("text/plain")
    assert plain.body == b"# HELP a Help.\n# TYPE a gauge\na 1.0\n"
    openmetrics = scrape(registry)({"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")
