"""Every alert fires and resolves: Prometheus' own test of rules. No cluster is needed."""

from pathlib import Path

import yaml

from gpufleet_e2e.monitoring.alert_cases import CASES
from gpufleet_e2e.monitoring.rule_tests import rule_tests
from gpufleet_e2e.support.programs.promtool import check_rules, run_rule_tests
from gpufleet_testbed import repository_root

FILE = repository_root() / "charts/gpufleet/files/alerts/gpufleet.yaml"


def test_every_alert_fires_and_resolves(tmp_path: Path) -> None:
    """Mechanism: `promtool test rules` evaluates each minute, and compares labels and annotations."""
    groups = yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert {case.alert for case in CASES} == rules.keys()
    check_rules(FILE)
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump(rule_tests(FILE, rules, CASES)), encoding="utf-8")
    assert not (failed := run_rule_tests(tests)), failed
