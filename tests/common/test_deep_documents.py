"""Objects with as many levels as kube-apiserver stores. In processes of their own: a limit, or a crash, is theirs."""

import subprocess
import sys

import pytest

READ = """
import json, sys
from gpufleet_common.deep_documents import accept_deep_documents
accept_deep_documents()
{between}
levels = 9_950
deep = json.loads('{{"a":' * levels + "1" + "}}" * levels)
"""
BY_OPERATOR = """
from gpufleet_operator.cache import decode
from gpufleet_operator.kube.api import parse
from gpufleet_testing.operator.synthetic import SyntheticFleet
from gpufleet_testing.operator import make

body = SyntheticFleet(1, 1, 0, make.NOW).workload(0)
body["spec"]["template"]["spec"]["volumes"] = [{"name": "deep", "emptyDir": deep}]
found = decode.workload(parse(json.dumps(body).encode()))
assert found.model is not None, found.invalid
assert found.model.spec.pod_spec["volumes"] == [{"name": "deep", "emptyDir": deep}]
"""
PROGRAMS = ("gpufleet_operator.main", "gpufleet_agent.main", "gpufleet_cli.main")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_operator_reads_a_template_with_ten_thousand_levels() -> None:
    found = run(READ.format(between="") + BY_OPERATOR)

    assert found.returncode == 0, found.stderr[-2000:]


def test_python_would_not_read_it_by_default() -> None:
    found = run(READ.format(between="sys.setrecursionlimit(1000)"))

    assert "RecursionError" in found.stderr


@pytest.mark.parametrize("size", [30_000, 1_000_000])
def test_deeper_text_is_an_error_and_no_crash(size: int) -> None:
    code = f"try:\n    json.loads('[' * {size})\nexcept RecursionError:\n    print('rejected')"
    found = run(READ.format(between="") + code)

    assert found.stdout == "rejected\n", found.stderr[-2000:]


@pytest.mark.parametrize("module", PROGRAMS)
def test_each_program_that_lists_objects_reads_deep_ones(module: str) -> None:
    """Ends the program where it sets the limit."""
    code = f"""
import sys
def note(limit):
    print("limit", limit, flush=True)
    sys.exit(0)
sys.setrecursionlimit = note
sys.argv = ["program", *{ARGUMENTS[module]!r}]
import {module}
{module}.main()
"""
    found = run(code)

    assert "limit 22000" in found.stdout, found.stderr[-2000:]


ARGUMENTS = {
    "gpufleet_operator.main": [],
    "gpufleet_agent.main": ["--node-name=n"],
    "gpufleet_cli.main": ["--version"],
}
