"""Learning curves: the log of a training run, drawn as SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 28, 34
# Room for the name of a curve.
_NAME = 75

Row = dict[str, Any]


def read_log(path: Path) -> list[Row]:
    """Read ``log.jsonl`` of a run: one JSON object per epoch. A last line that was cut off is left out.

    :raises ValueError: if the file is no such log.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and rows:
                break
            raise ValueError(f"{path} is no log of a training run: line {number} is not JSON.") from error
        if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
            raise ValueError(f"{path} is no log of a training run: line {number} has no epoch.")
        rows.append(row)
    return rows


def curves(title: str, rows: Sequence[Row], series: Sequence[tuple[str, str, str]]) -> str:
    """Draw figures over the epochs.

    :param series: key in the rows, name and color of each curve; epochs that lack a finite figure are left out.
    :return: an SVG element; "" if there is nothing to draw.
    """
    points = {
        key: [(row["epoch"], float(row[key])) for row in rows if _is_number(row.get(key))] for key, _, _ in series
    }
    everything = [point for curve in points.values() for point in curve]
    if not everything:
        return ""
    first, last = min(epoch for epoch, _ in everything), max(epoch for epoch, _ in everything)
    ticks = _ticks(min(value for _, value in everything), max(value for _, value in everything))

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - first) / max(last - first, 1)
        up = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>']
    for tick in ticks:
        _, y = place(first, tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for epoch in sorted({first, (first + last) // 2, last}):
        x, _ = place(epoch, ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 2}" text-anchor="middle">epoch</text>')
    for number, (key, name, color) in enumerate(series):
        places = [place(*point) for point in points[key]]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in places]
        if len(series) > 1:
            x = _WIDTH - _RIGHT - _NAME * (len(series) - number)
            parts.append(f'<text x="{x}" y="16" fill="{color}">{escape(name)}</text>')
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<svg {size} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _ticks(low: float, high: float) -> list[float]:
    """Choose round values that enclose a range, four to seven of them."""
    span = max(high - low, 1e-3, abs(high) * 1e-6)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(step * power for step in (0.2, 0.5, 1, 2) if span / (step * power) <= 5)
    start = math.floor(low / step)
    return [number * step for number in range(start, max(math.ceil(high / step), start + 1) + 1)]
