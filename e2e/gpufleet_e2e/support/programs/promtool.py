"""Prometheus' own linter for series and its unit tests of alerts: promtool."""

import subprocess
from pathlib import Path

from gpufleet_e2e.support.programs.prometheus_package import program


def check_metrics(page: str) -> list[str]:
    """Returns promtool's findings on a page of series, one line each; empty: there are none.

    Raises:
        AssertionError: The page is not in Prometheus' text format.
    """
    command = [str(program("promtool")), "check", "metrics"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
    # 3: the linter has findings. 1: the page cannot be parsed.
    assert done.returncode in (0, 3), f"promtool ended with {done.returncode}: {done.stderr}"
    return [line for line in (done.stdout + done.stderr).splitlines() if line]


def check_rules(rules: Path) -> None:
    """Fails if a rule file has an error, or the linter of rules a finding."""
    command = [str(program("promtool")), "check", "rules", "--lint-fatal", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_rule_tests(tests: Path) -> str:
    """Runs a file of unit tests of rules; returns what failed, empty: nothing."""
    command = [str(program("promtool")), "test", "rules", str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
