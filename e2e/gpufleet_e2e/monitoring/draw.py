"""Draws a dashboard as SVG from the answers of Prometheus, with Grafana's layout and without Grafana."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from gpufleet_e2e.monitoring.panels import BoardPanel

COLUMN, ROW, GAP = 50, 34, 8
_COLORS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d")
_MAX_ROWS, _MAX_LEGENDS = 6, 4
_STYLE = (
    "text{font-family:sans-serif;fill:#d8d9da;font-size:12px}.t{font-size:13px;font-weight:600}"
    ".v{font-size:30px;fill:#73bf69}.h{fill:#8e8e8e}.p{fill:#181b1f;stroke:#2c3235}"
)
_SCALES: Mapping[str, Sequence[tuple[float, str]]] = {
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (1, " B")),
    "s": ((3600, " h"), (60, " min"), (1, " s"), (0.001, " ms")),
    "percent": ((1, " %"),),
    "percentunit": ((0.01, " %"),),
    "watt": ((1000, " kW"), (1, " W")),
    "celsius": ((1, " °C"),),
    "decmbytes": ((1024, " GiB"), (1, " MiB")),
    "rotmhz": ((1, " MHz"),),
}


@dataclass(frozen=True, slots=True)
class PanelData:
    """The answers to the queries of a panel, by the name of the series: pairs of time and value, oldest first."""

    series: Mapping[str, Sequence[tuple[float, float]]]
    rows: Sequence[Sequence[str]] = ()
    """Of a table: the header, then the cells."""


def dashboard_svg(panels: Iterable[BoardPanel], data: Callable[[BoardPanel], PanelData]) -> str:
    """Returns the image of a dashboard."""
    parts: list[str] = []
    height = 0
    for panel in panels:
        x, y, w, h = panel.grid
        box = (x * COLUMN, y * ROW, w * COLUMN - GAP, h * ROW - GAP)
        height = max(height, (y + h) * ROW)
        if panel.kind == "row":
            parts.append(f'<text class="t" x="{box[0] + 4}" y="{box[1] + 20}">{escape(panel.title)}</text>')
            continue
        parts.append(f'<rect class="p" x="{box[0]}" y="{box[1]}" width="{box[2]}" height="{box[3]}" rx="3"/>')
        parts.append(f'<text class="t" x="{box[0] + 8}" y="{box[1] + 18}">{escape(panel.title)}</text>')
        parts += _content(panel, data(panel), box)
    width = 24 * COLUMN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {width + 8} {height}" width="{width}">'
        f'<style>{_STYLE}</style><rect x="-8" width="{width + 8}" height="{height}" fill="#111217"/>'
        f"{''.join(parts)}</svg>\n"
    )


def number(value: float, unit: str) -> str:
    """Returns a value with its unit, such as `2 GiB`."""
    scales = _SCALES.get(unit)
    if scales is None:
        return f"{value:.6g}"
    size, suffix = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    return f"{value / size:.4g}{suffix}"


Box = tuple[int, int, int, int]


def _content(panel: BoardPanel, data: PanelData, box: Box) -> Iterator[str]:
    if panel.kind == "table":
        return _table(data.rows, box)
    if not data.series:
        return iter([f'<text class="h" x="{box[0] + 8}" y="{box[1] + 44}">No data</text>'])
    if panel.kind == "stat":
        value = next(iter(data.series.values()))[-1][1]
        x, y = box[0] + box[2] // 2, box[1] + box[3] // 2 + 16
        return iter([f'<text class="v" text-anchor="middle" x="{x}" y="{y}">{number(value, panel.unit)}</text>'])
    return _lines(data.series, panel.unit, box)


def _table(rows: Sequence[Sequence[str]], box: Box) -> Iterator[str]:
    if len(rows) < 2:
        yield f'<text class="h" x="{box[0] + 8}" y="{box[1] + 44}">No data</text>'
        return
    step = (box[2] - 16) // len(rows[0])
    for line, row in enumerate(rows[: _MAX_ROWS + 1]):
        for column, cell in enumerate(row):
            x, y = box[0] + 8 + column * step, box[1] + 44 + line * 24
            text = cell if len(cell) * 7 < step else f"{cell[: max(1, step // 7 - 1)]}…"
            yield f'<text class="{"" if line else "h"}" x="{x}" y="{y}">{escape(text)}</text>'


def _lines(series: Mapping[str, Sequence[tuple[float, float]]], unit: str, box: Box) -> Iterator[str]:
    series = {name: [point for point in values if isfinite(point[1])] for name, values in series.items()}
    points = [point for values in series.values() for point in values] or [(0.0, 0.0)]
    first, last = min(t for t, _ in points), max(t for t, _ in points)
    most = max(v for _, v in points) or 1
    left, top, width, height = box[0] + 70, box[1] + 30, box[2] - 84, box[3] - 66
    yield f'<text class="h" x="{box[0] + 8}" y="{top + 10}">{number(most, unit)}</text>'
    yield f'<text class="h" x="{box[0] + 8}" y="{top + height}">{number(0, unit)}</text>'
    for index, (name, values) in enumerate(series.items()):
        color = _COLORS[index % len(_COLORS)]
        path = " ".join(
            f"{left + width * (t - first) / max(last - first, 1):.1f},{top + height * (1 - v / most):.1f}"
            for t, v in values
        )
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        if index < _MAX_LEGENDS:
            x, y = box[0] + 8 + index * ((box[2] - 16) // _MAX_LEGENDS), box[1] + box[3] - 10
            yield f'<text x="{x}" y="{y}" style="fill:{color}">{escape(name[: box[2] // 32])}</text>'
