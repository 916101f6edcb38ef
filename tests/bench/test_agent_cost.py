"""Values and limits of the agent's benchmarks."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gpufleet_e2e.fakes.process import ProcessSamples, peak_mib, per_minute, quantile, thread_count
from gpufleet_simgpu.model import NOT_AVAILABLE
from gpufleet_testing.simulated import Simulated

BENCH = Path(__file__).parents[2] / "bench"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_samples_have_slope_and_cpu_load() -> None:
    course = ProcessSamples(1, [0.0, 10.0, 20.0, 30.0], [50.0, 50.1, 50.2, 50.3], [1.0, 1.1, 1.2, 1.3])
    assert course.slope_mib_per_hour == pytest.approx(36)
    assert course.cpu_percent == pytest.approx(1)
    assert course.mean_mib(0.25) == pytest.approx(50.0)
    assert course.mean_mib(-0.5) == pytest.approx(50.25)
    assert course.after(10.0).seconds == 20


def test_slope_ignores_a_step_and_shows_growth_next_to_it() -> None:
    at = [float(second) for second in range(600)]
    step = [50.0 + (3 if second >= 200 else 0) for second in range(600)]
    assert ProcessSamples(1, at, step, at).slope_mib_per_hour == 0
    growing = [mib + second / 360 for second, mib in enumerate(step[:60] + [53.0] * 540)]
    assert ProcessSamples(1, at, growing, at).slope_mib_per_hour == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("begin", [0.0, 10.0, 29.0, 31.5])
@pytest.mark.parametrize("length", [26.0, 40.0, 80.0, 600.0])
def test_rate_does_not_depend_on_the_position_of_the_window(begin: float, length: float) -> None:
    times = [second * 31.5 for second in range(30)]
    rate = per_minute(times, begin, begin + length)
    none_within = (begin + length) // 31.5 == begin // 31.5
    assert rate is None if none_within else rate == pytest.approx(60 / 31.5)


def test_rate_excludes_writes_before_the_window() -> None:
    assert per_minute([0.0, 0.1, 1.0, 31.0, 61.0], 20.0, 70.0) == pytest.approx(2)
    assert per_minute([0.0, 0.1, 1.0], 20.0, 70.0) is None
    assert per_minute([], 20.0, 70.0) is None


def test_samples_of_this_process_show_memory_cpu_and_threads() -> None:
    course = ProcessSamples(os.getpid())
    course.take(0.0)
    sum(range(3_000_000))
    course.take(1.0)
    assert 10 < course.rss_mib[0] <= peak_mib(os.getpid()) + 1
    assert course.cpu_seconds[1] > course.cpu_seconds[0] > 0
    assert thread_count(os.getpid()) >= 1


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles_are_values_that_occurred(share: float, value: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == value


def test_over_reports_each_exceeded_limit() -> None:
    agent = load("agent")
    fine = agent.LIMITS | agent.GROWTH_LIMITS
    assert agent.over(fine, 600.4) == []
    assert agent.over({**fine, "writes_per_minute": None}, 600.4) == []
    assert agent.over({**fine, "rss_mib": 52.1}, 30.0) == ["rss_mib: 52.1 exceeds the limit of 52"]
    assert agent.over({**fine, "scrape_ms_p99": 100.5}, 30.0) == ["scrape_ms_p99: 100.5 exceeds the limit of 100"]


def test_growth_has_limits_only_in_long_runs() -> None:
    agent = load("agent")
    growing = agent.LIMITS | {"rss_slope_mib_per_hour": 3.0, "rss_slope_late_mib_per_hour": 7.0}
    assert agent.over(growing, 599.8) == ["rss_slope_late_mib_per_hour: 7 exceeds the limit of 6"]
    assert agent.over(growing, 120.0) == []


def test_reported_lists_the_devices_for_each_field(simulated: Simulated) -> None:
    simulated.edit(
        lambda node: node.with_gpu(1, encoder_percent=None).with_gpu(2, power_milliwatts=NOT_AVAILABLE, numa_node=None)
    )
    bench = load("nvml")
    with bench.timed() as costs:
        hardware = bench.opened()
        fields = bench.reported(hardware)
        hardware.close()
    assert bench.is_simulated()
    assert fields["temperature_celsius"] == [0, 1, 2, 3]
    assert fields["encoder_percent"] == [0, 2, 3]
    assert fields["power_milliwatts"] == [0, 1, 3]
    assert fields["numa_node"] == [0, 1, 3]
    assert fields["processes"] == [0, 1, 2, 3], "an empty list counts as reported"
    by_name = {cost.what: cost for cost in costs()}
    assert by_name["temperature"].calls == 4
    assert by_name["encoder"].calls == 3, "the unsupported call is not timed"
    assert 0 < by_name["power"].p50 <= by_name["power"].p99 <= by_name["power"].max


@pytest.mark.parametrize(
    ("module", "node", "problem"),
    [
        (True, "/dev/null", None),
        (False, "/dev/null", "the kernel module is not loaded"),
        (True, None, "is not a character device"),
        (True, "/proc/version", "is not a character device"),
    ],
)
def test_only_the_vendors_driver_is_hardware(
    tmp_path: Path,
    module: bool,
    node: str | None,
    problem: str | None,
) -> None:
    if module:
        (tmp_path / "driver/nvidia").mkdir(parents=True)
        (tmp_path / "driver/nvidia/version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module\n")
    if node is not None:
        (tmp_path / "nvidia0").symlink_to(node)
    found = load("nvml").why_not_the_driver(tmp_path, tmp_path)
    assert found is None if problem is None else problem in str(found)


def test_page_of_hardware_is_refused_without_the_driver(
    simulated: Simulated,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    bench, page = load("nvml"), tmp_path / "hardware.md"
    monkeypatch.setattr(bench.why_not_the_driver, "__defaults__", (tmp_path, tmp_path))
    monkeypatch.setattr(sys, "argv", ["nvml.py", "--docs", str(page)])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "--docs requires the vendor's driver: the kernel module is not loaded" in capsys.readouterr().err
    assert not page.exists()


def test_agent_inherits_the_settings_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_NVML_CONFIG", "/etc/h100.yaml")
    monkeypatch.setenv("KUBECONFIG", "/root/.kube/config")
    with load("nvml").driver(simulated=False) as environment:
        assert environment["MOCK_NVML_CONFIG"] == "/etc/h100.yaml"
        assert "KUBECONFIG" not in environment
