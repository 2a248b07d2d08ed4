"""Write the scores of classes as tables: mean IoU in both protocols, and the IoU of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlwm.core.evaluation.scores.score_table import ScoreTable, number

_MARKS_S = (1.0, 2.0, 3.0)


def class_tables(sheet: Mapping[str, Any]) -> list[ScoreTable]:
    """Return the tables of the classes of a score sheet; none where it has no classes."""
    block = sheet.get("classes")
    if block is None:
        return []
    horizons = sheet["horizons_s"]
    marks = [i for i, s in enumerate(horizons) if s in _MARKS_S] or list(range(len(horizons)))
    return [_means(block, horizons, marks), _each(block, horizons, marks)]


def _means(block: Mapping[str, Any], horizons: Sequence[float], marks: list[int]) -> ScoreTable:
    """Return mean IoU over the classes that occur, and the field's two numbers."""
    methods, field = block["methods"], block["field"]
    rows: list[tuple[str, ...]] = [("MEAN IOU OF THE CLASSES THAT OCCUR",)]
    rows += [(m, *_with_mean([of["miou"][i] for i in marks])) for m, of in methods.items()]
    if block["field_horizons_s"]:
        for title, key in (("MEAN IOU", "miou"), ("IOU OF OCCUPIED CELLS", "iou")):
            rows.append((f"{title}, FIELD'S PROTOCOL",))
            rows += [(m, *map(number, of[key])) for m, of in field.items()]
    count, first = len(block["names"]), next(iter(methods.values()))
    left = ", ".join(str(first["classes_left_out"][i]) for i in marks)
    at = ", ".join(f"{horizons[i]:g}" for i in marks)
    sentences = (
        f"Of {count} classes, {left} occur neither in the truth nor in the forecasts of "
        f"{next(iter(methods))} at {at} s and are left out of the mean; the field's protocol "
        "counts a class that the truth lacks as 1.",
    )
    columns = ("method", *(f"{horizons[i]:g} s" for i in marks), "mean")
    return ScoreTable(f"Classes: {count} and free space", columns, tuple(rows), sentences)


def _with_mean(values: list[float | None]) -> list[str]:
    present = [v for v in values if v is not None]
    mean = sum(present) / len(present) if present else None
    return [*map(number, values), number(mean)]


def _each(block: Mapping[str, Any], horizons: Sequence[float], marks: list[int]) -> ScoreTable:
    """Return the IoU of each class at the last horizon, a column a method."""
    methods, last = block["methods"], marks[-1]
    rows = [
        (name, *(number(of["iou"][name][last]) for of in methods.values()))
        for name in block["names"]
    ]
    title = f"IoU of each class at {horizons[last]:g} s"
    return ScoreTable(title, ("class", *methods), tuple(rows), ())
