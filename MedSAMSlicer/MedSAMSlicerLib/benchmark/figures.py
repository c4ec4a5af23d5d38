"""What was measured on one device, compared with another one, and written as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

# What is compared: the names of figures in seconds, as a table tells them.
_COMPARED = {
    "slice_encoded": "one slice encoded",
    "box_decoded": "one box decoded",
    "first_mask": "first mask",
    "box": "box through all slices",
    "second_box": "second box, same slices",
    "correction": "correction of a slice",
}


@dataclass(frozen=True)
class Figures:
    """What one device takes, in seconds where nothing else is said.

    :ivar gflops: 10^9 single-precision operations per second that matrix products reach.
    :ivar slice_encoded: the median of five.
    :ivar first_mask: from the press of the button to the mask of the first slice, the model being loaded.
    :ivar box: a 3-D box through all slices; ``second_box`` another one on the same slices, ``correction`` a key slice.
    :ivar process_mebibytes: the most memory that the process has had so far, None where the system doesn't tell.
    :ivar gpu_mebibytes: the most that PyTorch has held of the graphics card's memory, on a Mac what it holds at the
        end; None on a CPU.
    """

    device: str
    name: str
    gflops: float
    model_loaded: float
    slice_encoded: float
    box_decoded: float
    first_mask: float
    box: float
    second_box: float
    correction: float
    voxels: int
    process_mebibytes: float | None
    gpu_mebibytes: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures with as many digits as mean something."""
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in asdict(self).items()
        }


def ratios(figures: Figures, cpu: Figures) -> Mapping[str, float]:
    """Tell how many times as fast as the CPU a device is, figure by figure."""
    return {name: round(getattr(cpu, name) / getattr(figures, name), 2) for name in _COMPARED}


def table(rows: Sequence[Figures]) -> str:
    """Write the figures as a table in Markdown: a column for every device, and of two how the first compares."""

    def line(what: str, cell: Callable[[Figures], str], ratio: str = "") -> list[str]:
        return [what, *map(cell, rows), *([ratio] if len(rows) == 2 else [])]

    faster = ratios(*rows) if len(rows) == 2 else {}
    body = [
        line("", lambda figures: figures.device, "times as fast"),
        line("---", lambda figures: "---", "---"),
        line("matrix products, float32", lambda figures: f"{figures.gflops:,.0f} GFLOP/s"),
        line("model loaded", lambda figures: _seconds(figures.model_loaded)),
    ]
    for name, what in _COMPARED.items():
        seconds = partial(_seconds_of, name)
        body.append(line(what, seconds, f"{faster[name]:.1f}" if faster else ""))
    body.append(line("peak memory of the process", lambda figures: _mebibytes(figures.process_mebibytes)))
    body.append(line("peak memory of the GPU", lambda figures: _mebibytes(figures.gpu_mebibytes)))
    widths = [max(len(row[column]) for row in body) for column in range(len(body[0]))]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in body
    )


def _seconds_of(name: str, figures: Figures) -> str:
    return _seconds(getattr(figures, name))


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value < 1 else f"{value:.1f} s"


def _mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} MiB"
