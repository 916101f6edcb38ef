"""How good a device is right now: terms in 0..1, documented in units, weighted into one total.

| term | 1 means | 0 means |
|---|---|---|
| memory | all of it free | none free |
| utilization | 0 % busy | 100 % busy |
| temperature | 30 degrees Celsius or less | 90 or more |
| power | no draw | at its limit |

A value that the hardware doesn't report counts as 0.5 in the total and is None in the terms: a device gains
nothing by keeping silent, and isn't shut out either.
"""

from gpufleet_operator.placement.errors import InvalidRequestError
from gpufleet_operator.placement.model import DeviceState, ScoreWeights, Terms

COOL_CELSIUS = 30
HOT_CELSIUS = 90
NEUTRAL = 0.5


def check_weights(weights: ScoreWeights) -> None:
    """Raises InvalidRequestError for a negative weight or a sum of 0."""
    values = {"memory": weights.memory, "utilization": weights.utilization}
    values |= {"temperature": weights.temperature, "power": weights.power}
    for name, value in values.items():
        if value < 0:
            raise InvalidRequestError(f"weight {name} is {value}, must be 0 or more")
    if not sum(values.values()):
        raise InvalidRequestError("the weights sum to 0: at least one must be above 0")


def score(device: DeviceState, weights: ScoreWeights) -> Terms:
    """The device's terms and their weighted mean, rounded to millionths so that equal devices tie exactly."""
    memory = utilization = temperature = power = None
    if device.memory_total_mib and device.memory_used_mib is not None:
        memory = 1 - max(device.memory_used_mib, device.promised_memory_mib) / device.memory_total_mib
    if device.utilization_percent is not None:
        utilization = 1 - max(device.utilization_percent, device.promised_compute_percent) / 100
    if device.temperature_celsius is not None:
        span = (HOT_CELSIUS - device.temperature_celsius) / (HOT_CELSIUS - COOL_CELSIUS)
        temperature = min(1.0, max(0.0, span))
    if device.power_milliwatts is not None and device.power_limit_milliwatts:
        power = max(0.0, 1 - device.power_milliwatts / device.power_limit_milliwatts)
    weighted = (
        (memory, weights.memory),
        (utilization, weights.utilization),
        (temperature, weights.temperature),
        (power, weights.power),
    )
    total = sum((NEUTRAL if term is None else term) * weight for term, weight in weighted)
    return Terms(round(total / sum(w for _, w in weighted), 6), memory, utilization, temperature, power)


def mean(terms: list[Terms]) -> Terms:
    """The terms of a replica: the mean over its devices, None where a device lacks the value."""

    def of(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return round(sum(known) / len(known), 6) if len(known) == len(values) else None

    return Terms(
        round(sum(t.total for t in terms) / len(terms), 6),
        of([t.memory for t in terms]),
        of([t.utilization for t in terms]),
        of([t.temperature for t in terms]),
        of([t.power for t in terms]),
    )
