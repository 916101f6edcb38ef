"""promtool's unit tests of the alerts, from the cases.

Annotations are rendered here as well, so that promtool compares them with what Prometheus renders.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpufleet_e2e.monitoring.alert_cases import AlertCase

JsonObject = dict[str, Any]

_LABELS = re.compile(r"\{\{ (?:or )?((?:\$labels\.\w+ ?)+)\}\}")
_VALUE = re.compile(r"\{\{ \$value[^}]*\}\}")


def rule_tests(file: Path, rules: Mapping[str, JsonObject], cases: Sequence[AlertCase]) -> JsonObject:
    """Returns the content of a file for `promtool test rules`.

    Args:
        file: The rule file.
        rules: Its rules, by the name of the alert.
        cases: The cases to test.
    """
    tests = [_test(case, rules[case.alert]) for case in cases]
    return {"rule_files": [str(file)], "evaluation_interval": "1m", "tests": tests}


def _test(case: AlertCase, rule: JsonObject) -> JsonObject:
    firing = {
        "exp_labels": {**rule["labels"], **case.labels},
        "exp_annotations": {
            name: _rendered(text, case.labels, case.value) for name, text in rule["annotations"].items()
        },
    }
    expected = {case.quiet: [], case.fires: [firing], case.ends: []}
    return {
        "name": f"{case.alert} {case.name}".strip(),
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": alerts}
            for minute, alerts in expected.items()
        ],
    }


def _rendered(text: str, labels: Mapping[str, str], value: str) -> str:
    def first(found: re.Match[str]) -> str:
        names = re.findall(r"\$labels\.(\w+)", found[1])
        return next((labels[name] for name in names if labels.get(name)), "")

    return _VALUE.sub(value, _LABELS.sub(first, text))
