"""Turn a score sheet into rows of text and a summary in words. The command prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlwm.core.evaluation.baselines.fitted import MEMORY, track_of
from vlwm.core.evaluation.scores.bootstrap import FEWEST_CLUSTERS
from vlwm.core.evaluation.scores.score_sheet import TRACKS

_MARKS_S = (1.0, 2.0, 3.0)
_TITLES = {"predicted": "PREDICTED TRACK", "plan": "PLAN TRACK", "round_trip": "ROUND TRIP"}


def methods_of(sheet: Mapping[str, Any], track: str) -> list[str]:
    """Return the methods of a track: the model first, then from the strongest to the weakest."""

    def order(method: str) -> tuple[bool, float]:
        mean = _mean(sheet["scores"][method]["iou"])
        return method not in TRACKS, -(mean if mean is not None else -1.0)

    return sorted((m for m in sheet["scores"] if track_of(m) == track), key=order)


@dataclass(frozen=True)
class ScoreTable:
    """Rows of one table.

    Attributes:
        title: what was scored.
        columns: headings.
        rows: cells; a row with one cell opens a track.
        sentences: what an operator must not overlook.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def score_table(sheet: Mapping[str, Any], *, wide: bool = False) -> ScoreTable:
    """Return the table of a score sheet: both tracks, at 1, 2 and 3 s, with words of warning.

    Args:
        sheet: content of scores.json.
        wide: with intervals, precision, recall and mean ratio: 140 columns instead of 80.
    """
    marks = [i for i, s in enumerate(sheet["horizons_s"]) if s in _MARKS_S]
    marks = marks or list(range(len(sheet["horizons_s"])))
    columns = _columns(sheet, marks, wide)
    rows: list[tuple[str, ...]] = []
    for track, title in _TITLES.items():
        methods = methods_of(sheet, track)
        if methods:
            rows.append((title,))
            rows += [_row(sheet, method, marks, wide) for method in methods]
    return ScoreTable(_title(sheet), columns, tuple(rows), tuple(sentences(sheet)))


def _columns(sheet: Mapping[str, Any], marks: Sequence[int], wide: bool) -> tuple[str, ...]:
    at = [f"{sheet['horizons_s'][i]:g} s" for i in marks]
    last = at[-1]
    iou = [f"IoU {s}" for s in at]
    zones = _zone_keys(sheet)
    if not wide:
        return ("method", *iou, f"struct. {last}", *(f"{name} {last}" for name in zones))
    structure = [f"struct. {s}" for s in at]
    rest = [f"{name} {last}" for name in (*zones, "prec.", "recall", "ratio")]
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
    zones = [number(block[key][last]) for key in _zone_keys(sheet).values()]
    if not wide:
        return (method, *iou, number(block["iou_structure"][last]), *zones)
    structure = [number(block["iou_structure"][i]) for i in marks]
    sides = [number(block[key][last]) for key in ("precision", "recall", "mean_ratio")]
    return (method, *iou, _interval(sheet, method, last), *structure, *zones, *sides)


def _zone_keys(sheet: Mapping[str, Any]) -> dict[str, str]:
    """Return heading -> score of the zones: those of an observed past where there is one."""
    if "observed" not in sheet:
        return {"seen": "iou_seen", "new": "iou_new"}
    return {
        "obs.": "iou_observed",
        "occl.": "iou_occluded",
        "new": "iou_new",
        "false-free": "false_free_on_way",
    }


def number(value: float | None) -> str:
    """Return a score in three digits; a score that does not exist is a dash."""
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
    """Return what the numbers mean, in words: the verdict, too few clusters, origin of the data."""
    found = [s for method in TRACKS if (s := _verdict(sheet, method)) is not None]
    found += [s for track in MEMORY if (s := _stronger(sheet, track)) is not None]
    if sheet["too_few_clusters"]:
        found.append(
            f"Too few clusters for intervals: {sheet['n_clusters']} of at least {FEWEST_CLUSTERS}; "
            "take differences as hints."
        )
    absent = sheet["zones"]["all"]["frames_without_occupied_cells"]
    if any(absent):
        found.append(f"True frames without any occupied cell, by horizon: {absent}.")
    if sheet["procedural"]:
        found.append("The city is procedural: these scores do not carry over to a real one.")
    if sheet.get("attribution"):
        found.append(f"Data: {sheet['attribution']}")
    return found


def _verdict(sheet: Mapping[str, Any], method: str) -> str | None:
    """Return how a model compares with the baseline of its track; None without the model."""
    baseline = sheet.get("baseline", MEMORY)[TRACKS[method]]
    difference = sheet["differences"].get(f"{method}-{baseline}")
    if difference is None:
        return None
    value = _mean(difference["iou"]["difference"])
    if value is None:
        return f"{method} cannot be compared with {baseline}: nothing is occupied."
    structure = _mean(difference["iou_structure"]["difference"])
    also = "" if structure is None else f", structure IoU {structure:+.3f}"
    words = f"mean IoU {value:+.3f}{also}{_certainty(difference['iou']['interval'])}"
    if value < 0:
        verdict = f"BELOW its baseline: {method} forecasts worse than {baseline}"
        return f"{verdict}, which learns nothing by gradient: {words}."
    if structure is not None and structure < 0:
        return f"{method} is above its baseline {baseline}, but BELOW it on structure: {words}."
    return f"{method} is above its baseline {baseline}: {words}."


def _stronger(sheet: Mapping[str, Any], track: str) -> str | None:
    """Return which baseline is stronger on this split than the one that validation chose, if any.

    Validation is another part of the city, so the choice can be a close second here.
    """
    means = {m: _mean(sheet["scores"][m]["iou"]) for m in methods_of(sheet, track)}
    present = {m: v for m, v in means.items() if v is not None and m not in TRACKS}
    chosen = sheet.get("baseline", MEMORY)[track]
    if chosen not in present:
        return None
    best = max(present, key=lambda m: present[m])
    if present[best] <= present[chosen]:
        return None
    words = f"{best} (mean IoU {present[best]:.3f}) is stronger than {chosen} "
    words += f"({present[chosen]:.3f}), which is stronger on validation"
    model = next((m for m in TRACKS if TRACKS[m] == track and means.get(m) is not None), None)
    if model is None:
        return f"On this split {words}."
    own = means[model] or 0.0
    place = "above" if own >= present[best] else "BELOW"
    return f"On this split {words}; {model} is {place} it by {abs(own - present[best]):.3f}."


def _certainty(intervals: Sequence[Sequence[float] | None]) -> str:
    """Return the number of horizons at which the interval of the difference excludes zero."""
    present = [ends for ends in intervals if ends is not None]
    if not present:
        return ""
    clear = sum(ends[0] > 0 or ends[1] < 0 for ends in present)
    return f"; the interval excludes zero at {clear} of {len(present)} horizons"
