"""A score sheet as rows of text, and what it says in words. Printing is the command's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlwm.core.evaluation.scores.bootstrap import FEWEST_CLUSTERS
from vlwm.core.evaluation.scores.score_sheet import RIVALS

_TRACKS = (
    ("PREDICTED TRACK",
     ("model", "memory_baseline", "constant_velocity_warp", "copy_last", "ground_prior", "empty")),
    ("PLAN TRACK",
     ("model_plan", "true_pose_memory", "true_pose_warp")),
    ("ROUND TRIP",
     ("tokenizer_round_trip",)),
)  # fmt: skip
_MARKS_S = (1.0, 2.0, 3.0)
_UNLEARNED = {
    "model": ("memory_baseline", "constant_velocity_warp", "copy_last", "ground_prior"),
    "model_plan": ("true_pose_memory", "true_pose_warp"),
}
"""Method -> everything without learning in its track."""


@dataclass(frozen=True)
class ScoreTable:
    """Rows of one table.

    Attributes:
        title: what was judged.
        columns: headings.
        rows: cells; a row with one cell opens a track.
        sentences: what an operator must not overlook.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def score_table(sheet: Mapping[str, Any], *, wide: bool = False) -> ScoreTable:
    """The table of a score sheet: both tracks, at 1, 2 and 3 s, with words of warning.

    Args:
        sheet: content of scores.json.
        wide: with intervals, precision, recall and mean ratio: 140 columns instead of 80.
    """
    marks = [i for i, s in enumerate(sheet["horizons_s"]) if s in _MARKS_S]
    marks = marks or list(range(len(sheet["horizons_s"])))
    columns = _columns(sheet, marks, wide)
    rows: list[tuple[str, ...]] = []
    for track, methods in _TRACKS:
        present = [m for m in methods if m in sheet["scores"]]
        if present:
            rows.append((track,))
            rows += [_row(sheet, method, marks, wide) for method in present]
    return ScoreTable(_title(sheet), columns, tuple(rows), tuple(sentences(sheet)))


def _columns(sheet: Mapping[str, Any], marks: Sequence[int], wide: bool) -> tuple[str, ...]:
    at = [f"{sheet['horizons_s'][i]:g} s" for i in marks]
    last = at[-1]
    iou = [f"IoU {s}" for s in at]
    if not wide:
        return ("method", *iou, f"struct. {last}", f"seen {last}", f"new {last}")
    structure = [f"struct. {s}" for s in at]
    rest = [f"{name} {last}" for name in ("seen", "new", "prec.", "recall", "ratio")]
    return ("method", *iou, f"interval {last}", *structure, *rest)


def _title(sheet: Mapping[str, Any]) -> str:
    windows, clusters = sheet["n_windows"], sheet["n_clusters"]
    made_up = ", procedural city" if sheet["procedural"] else ""
    return f"Split {sheet['split']}: {windows} windows in {clusters} clusters{made_up}"


def _row(
    sheet: Mapping[str, Any], method: str, marks: Sequence[int], wide: bool
) -> tuple[str, ...]:
    block, last = sheet["scores"][method], marks[-1]
    iou = [number(block["iou"][i]) for i in marks]
    zones = [number(block[key][last]) for key in ("iou_seen", "iou_new")]
    if not wide:
        return (method, *iou, number(block["iou_structure"][last]), *zones)
    structure = [number(block["iou_structure"][i]) for i in marks]
    sides = [number(block[key][last]) for key in ("precision", "recall", "mean_ratio")]
    return (method, *iou, _interval(sheet, method, last), *structure, *zones, *sides)


def number(value: float | None) -> str:
    """A score in three digits; a score that does not exist is a dash."""
    return "–" if value is None else f"{value:.3f}"


def _mean(values: Sequence[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None


def _interval(sheet: Mapping[str, Any], method: str, horizon: int) -> str:
    if sheet["too_few_clusters"]:
        return "too few"
    ends = sheet["intervals"][method]["iou"][horizon]
    return "–" if ends is None else f"{ends[0]:.3f}–{ends[1]:.3f}"


def sentences(sheet: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, in words: rivals, too few clusters, where the data is from."""
    found = [s for method in RIVALS if (s := _against_rival(sheet, method)) is not None]
    found += [s for method in RIVALS if (s := _stronger_rival(sheet, method)) is not None]
    if sheet["too_few_clusters"]:
        found.append(
            f"Too few clusters for intervals: {sheet['n_clusters']} of at least {FEWEST_CLUSTERS}; "
            "take differences as hints."
        )
    absent = sheet["zones"]["all"]["frames_without_occupied_cells"]
    if any(absent):
        found.append(f"True frames without any occupied cell, by horizon: {absent}.")
    if sheet["procedural"]:
        found.append("The city is procedural: these scores say nothing about a real one.")
    if sheet.get("attribution"):
        found.append(f"Data: {sheet['attribution']}")
    return found


def _against_rival(sheet: Mapping[str, Any], method: str) -> str | None:
    """Where a model stands against the rival of its own track, or None without the model."""
    rival = RIVALS[method]
    difference = sheet["differences"].get(f"{method}-{rival}")
    if difference is None:
        return None
    value = _mean(difference["iou"]["difference"])
    if value is None:
        return f"{method} cannot be compared with {rival}: nothing is occupied."
    structure = _mean(difference["iou_structure"]["difference"])
    also = "" if structure is None else f", structure IoU {structure:+.3f}"
    words = f"mean IoU {value:+.3f}{also}{_certainty(difference['iou']['interval'])}"
    if value < 0:
        verdict = f"BELOW its rival: {method} forecasts worse than {rival}, which learns nothing"
        return f"{verdict}: {words}."
    if structure is not None and structure < 0:
        return f"{method} is above its rival {rival}, but BELOW it on structure: {words}."
    return f"{method} is above its rival {rival}: {words}."


def _stronger_rival(sheet: Mapping[str, Any], method: str) -> str | None:
    """Where the rival of a track is not its strongest method without learning, which one is.

    On slopes the ground is in no single layer, and four votes can be worse than one.
    """
    means = {
        m: _mean(sheet["scores"][m]["iou"]) for m in _UNLEARNED[method] if m in sheet["scores"]
    }
    present = {m: value for m, value in means.items() if value is not None}
    if not present or RIVALS[method] not in present:
        return None
    best, rival = max(present, key=lambda m: present[m]), RIVALS[method]
    if present[best] <= present[rival]:
        return None
    words = f"{best} (mean IoU {present[best]:.3f}) is stronger than {rival} ({present[rival]:.3f})"
    own = _mean(sheet["scores"][method]["iou"]) if method in sheet["scores"] else None
    if own is None:
        return f"On this split {words}."
    place = "above" if own >= present[best] else "BELOW"
    return f"On this split {words}; {method} is {place} it by {abs(own - present[best]):.3f}."


def _certainty(intervals: Sequence[Sequence[float] | None]) -> str:
    """At how many horizons the interval of the difference excludes zero."""
    present = [ends for ends in intervals if ends is not None]
    if not present:
        return ""
    clear = sum(ends[0] > 0 or ends[1] < 0 for ends in present)
    return f"; the interval excludes zero at {clear} of {len(present)} horizons"


def table_text(table: ScoreTable) -> str:
    """The table as plain aligned text, for logs and files."""
    full = [table.columns, *(row for row in table.rows if len(row) > 1)]
    widths = [max(len(row[i]) for row in full) for i in range(len(table.columns))]

    def line(row: Sequence[str]) -> str:
        if len(row) == 1:
            return row[0]
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells)

    return "\n".join([table.title, *map(line, [table.columns, *table.rows]), *table.sentences])
