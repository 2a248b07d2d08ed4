"""Turn score sheets and metric lines into charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlwm.core.report.svg import COLOURS, OTHER_COLOURS, STRONG, Chart, Line
from vlwm.core.vocabulary import Track

_SCORES = (
    ("iou", "IoU, all cells"),
    ("iou_structure", "structure IoU, above the ground"),
    ("iou_new", "IoU of cells that no past frame reached"),
)
_MOST_POINTS = 400


def colour_of(method: str, methods: Sequence[str]) -> str:
    """Return the colour of a method; unknown ones take the remaining colours in order."""
    if method in COLOURS:
        return COLOURS[method]
    others = [m for m in methods if m not in COLOURS]
    return OTHER_COLOURS[others.index(method) % len(OTHER_COLOURS)]


def score_lines(sheet: Mapping[str, Any], key: str) -> list[Line]:
    """Return a line for each method over the horizon, with its 95 % interval as a band."""
    methods = [m for m in sheet["scores"] if m != "empty"]
    lines = []
    for method in methods:
        values = sheet["scores"][method].get(key) or []
        points = [
            (s, v) for s, v in zip(sheet["horizons_s"], values, strict=False) if v is not None
        ]
        ends = sheet.get("intervals", {}).get(method, {}).get(key) or []
        band = [(s, *e) for s, e in zip(sheet["horizons_s"], ends, strict=False) if e is not None]
        strong = method in STRONG
        lines.append(Line(method, points, colour_of(method, methods), band, strong))
    return sorted(lines, key=lambda line: line.strong)


def score_charts(sheet: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of scores over the horizon."""
    return [
        Chart(title, "seconds ahead", "IoU", score_lines(sheet, key), (0.0, 1.0))
        for key, title in _SCORES
    ]


def reliability_chart(sheet: Mapping[str, Any]) -> Chart | None:
    """Return observed against predicted probability; None for baselines alone."""
    found = sheet.get("reliability")
    if not found:
        return None
    pairs = zip(found["predicted"], found["observed"], strict=True)
    points = [(p, o) for p, o in pairs if p is not None and o is not None]
    line = Line("", points, COLOURS[Track.PLAN], strong=True)
    threshold = sheet.get("threshold")
    marks = () if threshold is None else ((threshold, f"threshold {threshold:.2f}"),)
    return Chart(
        "Reliability of the probabilities", "predicted probability", "observed share occupied",
        [line], (0.0, 1.0), diagonal=True, x_range=(0.0, 1.0), marks=marks,
    )  # fmt: skip


def training_charts(
    world: Sequence[Mapping[str, Any]], tokenizer: Sequence[Mapping[str, Any]]
) -> list[Chart]:
    """Return the curves of both stages from the lines of their metrics.jsonl."""
    orange, blue, green = "#d55e00", "#0072b2", "#009e73"
    charts = [
        Chart(
            "Stage 2, training loss", "step", "loss",
            [Line("train/loss", _series(world, "train/loss"), orange),
             Line("loss/occupancy", _series(world, "loss/occupancy"), blue)],
        ),
        Chart(
            "Stage 2, IoU on validation", "step", "IoU",
            [Line("predicted track", _series(world, "val/iou"), orange, strong=True),
             Line("plan track", _series(world, "val/iou_plan"), blue, strong=True),
             Line("strongest baseline", _baseline_of(world, "iou_baseline"), "#e69f00"),
             Line("of the plan track", _series(world, "val/iou_plan_baseline"), "#56b4e9")],
            (0.0, 1.0),
        ),
        Chart(
            "Stage 1, training loss", "step", "loss",
            [Line("train/loss", _series(tokenizer, "train/loss"), orange)],
        ),
        Chart(
            "Stage 1, codes of the codebook in use", "step", "codes",
            [Line("in use", _series(tokenizer, "codebook/used"), blue),
             Line("perplexity", _series(tokenizer, "codebook/perplexity"), green),
             Line("size", _series(tokenizer, "codebook/size"), "#969696")],
        ),
    ]  # fmt: skip
    return [chart for chart in charts if any(line.points for line in chart.lines)]


def _baseline_of(world: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[float, float]]:
    """Return the IoU of the baseline; the memory baseline's in runs that fitted no other."""
    return _series(world, f"val/{metric}") or _series(world, "val/iou_memory_baseline")


def _series(records: Iterable[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return (step, value) of a metric, thinned evenly to what a screen can show."""
    found = [
        (float(r["step"]), float(r[key]))
        for r in records
        if isinstance(r.get(key), (int, float)) and isinstance(r.get("step"), (int, float))
    ]
    step = max(1, len(found) // _MOST_POINTS)
    return found[::step]
