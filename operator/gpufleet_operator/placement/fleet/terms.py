"""The terms of a device's score, in millionths: computed once when a device is written into the arrays.

| term | 1 means | 0 means |
|---|---|---|
| memory | all of it free, except what the driver reserves | none free |
| utilization | 0 % busy | 100 % busy |
| temperature | 30 degrees Celsius or less | 90 or more |
| power | no draw | at its limit |

Memory and utilization use the promised or the observed value, whichever is higher, plus what is in flight, so that a
burst of requests is not placed on one device that still appears idle. A value that the hardware does not report counts
as NEUTRAL in the total and is None in the terms, so a device neither gains nor is excluded by not reporting it.
"""

from gpufleet_operator.placement.model import DeviceState

COOL_CELSIUS = 30
HOT_CELSIUS = 90
ONE = 1_000_000
NEUTRAL = ONE // 2

TERMS = 4
MEMORY, UTILIZATION, TEMPERATURE, POWER = range(TERMS)
"""Order of the terms."""


def millionths(device: DeviceState) -> tuple[int | None, int | None, int | None, int | None]:
    """Returns (memory, utilization, temperature, power) in millionths; None for a value that is not reported."""
    memory = utilization = temperature = power = None
    free, compute = device.memory_free_mib, device.compute_in_use_percent
    if free is not None and device.memory_usable_mib:
        memory = memory_millionths(free, device.memory_usable_mib)
    if compute is not None:
        utilization = utilization_millionths(compute)
    if device.temperature_celsius is not None:
        span = (HOT_CELSIUS - device.temperature_celsius) * ONE // (HOT_CELSIUS - COOL_CELSIUS)
        temperature = min(ONE, max(0, span))
    if device.power_milliwatts is not None and device.power_limit_milliwatts:
        headroom = device.power_limit_milliwatts - device.power_milliwatts
        power = max(0, headroom * ONE // device.power_limit_milliwatts)
    return memory, utilization, temperature, power


def memory_millionths(free_mib: int, total_mib: int) -> int:
    return max(0, free_mib * ONE // total_mib)


def utilization_millionths(compute_percent: int) -> int:
    return max(0, 100 - compute_percent) * (ONE // 100)
