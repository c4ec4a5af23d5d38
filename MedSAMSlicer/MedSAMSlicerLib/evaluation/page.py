"""The report as a page: one file that works offline and holds everything that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from MedSAMSlicerLib.evaluation.comparison import Comparison, View
from MedSAMSlicerLib.evaluation.curves import curves
from MedSAMSlicerLib.evaluation.pictures import AFTER, BEFORE, EXPERT, inline, outlined, side_by_side
from MedSAMSlicerLib.evaluation.report import FIGURES, Report
from MedSAMSlicerLib.evaluation.scores import TIGHT

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.verdict { font-size: 1.2rem; padding: .8rem 1rem; border-left: .5rem solid #e69f00; background: #f5f5f5; }
.better { border-color: #009e73; } .not-better { border-color: #c33; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th { border-bottom: 1px solid #999; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; } td { border-bottom: 1px solid #ddd; }
figure { margin: 1rem 0; } figure img { max-width: 100%; }
svg text { font-size: 11px; } svg text.title { font-size: 13px; font-weight: bold; } svg .grid { stroke: #ddd; }
"""


def render(report: Report) -> str:
    """Write the page: HTML, complete in itself."""
    comparison = report.comparison
    verdict = comparison.verdict()
    kind = verdict.outcome.replace(" ", "-")
    cases = len({result.case_id for result in comparison.results})
    parts = [
        f"<h1>{escape(report.tuned)} beside {escape(report.base)}</h1>",
        f'<p class="verdict {kind}">{escape(verdict.text)}</p>',
        f"<p>Patients held out of training: {len(comparison.patients)}; cases: {cases}. Every structure was segmented "
        "by both models from one 3-D box, the bounds of the expert's label; from a box on its middle slice, 5 % "
        "larger; and, for comparison, from the expert's own box in every slice. Means and 95 % intervals are those of "
        "a paired bootstrap over patients.</p>",
        "<h2>Before and after, by label</h2>",
        _labels(comparison),
        *(["<h2>A specialist beside it</h2>", f"<p>{escape(report.beside())}</p>"] if report.specialist else []),
        "<h2>Response to the box</h2>",
        _response(comparison),
        _learning(report),
        "<h2>Worst cases</h2>",
        "<p>What the tuned model segments worst, in the slice where it is wrong most: the image; the "
        f"{_colored('expert', EXPERT)}; the model {_colored('before', BEFORE)} and {_colored('after', AFTER)}.</p>",
        *(_figure(view) for view in comparison.worst),
        "<h2>All cases</h2>",
        _cases(comparison),
    ]
    if report.card:
        parts += ["<h2>Model card</h2>", _card(report.card)]
    title = f"{report.tuned}: {verdict.outcome}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _labels(comparison: Comparison) -> str:
    rows = []
    for label in (*comparison.labels, None):
        for figure, box, name in FIGURES:
            before, after = comparison.means(figure, box, label)
            difference = comparison.difference(figure, box, label)
            shown = "all labels" if label is None else label
            row = (shown, name, f"{before:.3f}", f"{after:.3f}", str(difference), str(difference.count))
            rows.append(row)
    return _table(("Label", "Figure", "Before", "After", "Difference", "Patients"), rows)


def _response(comparison: Comparison) -> str:
    if comparison.responses is None:
        return "<p>No structure is large enough to measure it.</p>"
    before, after = comparison.responses
    rows = [
        ("Follows: half a box gives that half of the structure (0: deaf to its box)", before.follows, after.follows),
        ("Finds: a loose box gives the structure (0: fills its box)", before.finds, after.finds),
    ]
    return _table(("", "Before", "After"), [(name, f"{one:.2f}", f"{other:.2f}") for name, one, other in rows])


def _learning(report: Report) -> str:
    charts = [
        curves("Training loss", report.log, [("train_loss", "loss", "#0072b2")]),
        curves(
            "Validation Dice",
            report.log,
            [
                ("validation_dice", "3-D box", "#009e73"),
                ("validation_one_slice_dice", "one slice", "#cc79a7"),
                ("validation_per_slice_dice", "per slice", "#56b4e9"),
            ],
        ),
    ]
    if not any(charts):
        return ""
    best = max((row["epoch"] for row in report.log if row.get("best")), default=None)
    note = "" if best is None else f"<p>Chosen by its validation: the model of epoch {best}.</p>"
    return f"<h2>Learning curves</h2>\n<div>{''.join(charts)}</div>{note}"


def _figure(view: View) -> str:
    result, expert = view.result, (view.expert, EXPERT)
    picture = side_by_side(
        [
            outlined(view.image, masks, view.steps)
            for masks in ([], [expert], [expert, (view.before, BEFORE)], [expert, (view.after, AFTER)])
        ]
    )
    words = f"{result.case_id}, {result.label}: Dice {result.before.dice:.3f} before, {result.after.dice:.3f} after"
    return (
        f'<figure><img src="{inline(picture)}" alt="{escape(words)}"><figcaption>{escape(words)}</figcaption></figure>'
    )


def _cases(comparison: Comparison) -> str:
    rows = [
        (
            result.case_id,
            result.patient,
            result.label,
            f"{result.before.dice:.3f}",
            f"{result.after.dice:.3f}",
            f"{result.before.surface_dice:.3f}",
            f"{result.after.surface_dice:.3f}",
        )
        for result in comparison.results
        if result.box == TIGHT
    ]
    head = ("Case", "Patient", "Label", "Dice before", "after", "Surface Dice before", "after")
    return _table(head, rows)


def _card(card: Mapping[str, Any]) -> str:
    """Show nested figures as rows, their keys joined to a path."""
    return _table(("", ""), list(_leaves(card)))


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}: {key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        yield path, ", ".join(map(str, value))
    else:
        yield path, "–" if value is None else str(value)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
    return f"<table><tr>{cells}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _colored(text: str, color: tuple[int, int, int]) -> str:
    return f'<b style="color: rgb{color}">{escape(text)}</b>'
