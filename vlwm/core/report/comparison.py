"""Compare trained models on the same windows: paired differences with intervals.

All models see the same windows in the same order; the resamples of clusters are the same for all,
so the interval of a difference is paired (`evaluation.scores.bootstrap`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlwm.core.errors import DataError
from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.evaluation.evaluator import Subject
from vlwm.core.evaluation.metrics import SCORES, ZONES, iou_of, none_for_nan
from vlwm.core.evaluation.scores.bootstrap import FEWEST_CLUSTERS, interval_of, resampled_iou
from vlwm.core.vocabulary import Track

COMPARED: tuple[str, ...] = tuple(track.value for track in Track)
_KEYS = ("iou", "iou_structure")
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""caption, columns, rows"""


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        name: of the run, as the operator gave it.
        tally: counts of all its windows.
        config: that it was trained with, as plain values.
        data_hash: of the data that it was evaluated on.
    """

    name: str
    tally: Tally
    config: Mapping[str, Any]
    data_hash: str


def check_same_windows(runs: Sequence[tuple[str, Subject]]) -> None:
    """Compare the windows of runs by name, before any of them is scored.

    Raises:
        DataError: two runs would be evaluated on other data or other windows.
    """
    (name, first), *others = runs
    for other, subject in others:
        if _windows_of(subject) != _windows_of(first):
            raise _other_windows(name, other)


def _windows_of(subject: Subject) -> tuple[str, list[tuple[str, int]]]:
    return subject.store.data_hash, [(w.session, w.start) for w in subject.windows]


def _other_windows(first: str, other: str) -> DataError:
    return DataError(
        f"{first} and {other} are not evaluated on the same windows",
        remedy="give one --data DIR and one --split for all runs",
    )


def comparison(runs: Sequence[Compared], horizons_s: Sequence[float]) -> dict[str, Any]:
    """Return every run's scores less those of the first, with paired intervals.

    Raises:
        DataError: the runs were not evaluated on the same windows.
    """
    first, *others = runs
    for other in others:
        same = list(other.tally.clusters) == list(first.tally.clusters)
        if not same or other.data_hash != first.data_hash or (
            other.tally.total.windows != first.tally.total.windows
        ):  # fmt: skip
            raise _other_windows(first.name, other.name)
    return {
        "windows": first.tally.total.windows,
        "clusters": len(first.tally.clusters),
        "too_few_clusters": len(first.tally.clusters) < FEWEST_CLUSTERS,
        "horizons_s": list(horizons_s),
        "reference": first.name,
        "scores": {run.name: _scores(run.tally) for run in runs},
        "differences": {run.name: _differences(first.tally, run.tally) for run in others},
        "configs": {run.name: config_differences(first.config, run.config) for run in others},
    }


def _scores(tally: Tally) -> dict[str, Any]:
    present = [m for m in COMPARED if m in tally.methods]
    return {m: {k: tally.total.scores(m)[k] for k in _KEYS} for m in present}


def _differences(first: Tally, other: Tally) -> dict[str, Any]:
    """Return other less first, per track and score: differences (H,) and their intervals."""
    enough = len(first.clusters) >= FEWEST_CLUSTERS
    found: dict[str, Any] = {}
    for method in (m for m in COMPARED if m in first.methods and m in other.methods):
        rows = [t.methods.index(method) for t in (first, other)]
        pooled = [iou_of(t.total.counts[r]) for t, r in zip((first, other), rows, strict=True)]
        samples = None
        if enough:  # (R, H, Z) each, of the same resamples
            counts = [
                np.stack([c[r] for c in t.clusters.values()])
                for t, r in zip((first, other), rows, strict=True)
            ]
            samples = resampled_iou(counts[1]) - resampled_iou(counts[0])
        found[method] = {}
        for key in _KEYS:
            zone = ZONES.index(SCORES[key])
            ends = None if samples is None else interval_of(samples[..., zone])
            found[method][key] = {
                "difference": none_for_nan(pooled[1][:, zone] - pooled[0][:, zone]),
                "low": None if ends is None else none_for_nan(ends.low),
                "high": None if ends is None else none_for_nan(ends.high),
            }
    return found


def config_differences(
    first: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> dict[str, list[object]]:
    """Return key -> [first, other] of every config value that differs."""
    found: dict[str, list[object]] = {}
    for key in sorted({*first, *other}):
        a, b = first.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= config_differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = [a, b]
    return found


def comparison_tables(result: Mapping[str, Any]) -> list[Table]:
    """Return the comparison as tables for terminal and page: (caption, columns, rows)."""
    heads = tuple(f"{s:g} s" for s in result["horizons_s"])
    rows: list[tuple[str, ...]] = []
    for method in COMPARED:
        for key in _KEYS:
            if not any(method in found for found in result["differences"].values()):
                continue
            rows.append((f"{method}, {key}",))
            reference = result["scores"][result["reference"]][method][key]
            rows.append((result["reference"], *(_number(v) for v in reference)))
            for name, found in result["differences"].items():
                rows.append((f"{name} less {result['reference']}", *_with_ends(found[method][key])))
    caption = f"{result['windows']} windows in {result['clusters']} clusters, the same for all"
    if result["too_few_clusters"]:
        caption += "; too few clusters for intervals"
    tables: list[Table] = [(caption, ("run", *heads), rows)]
    for name, differences in result["configs"].items():
        lines: list[tuple[str, ...]] = [
            (k, _word(a), _word(b)) for k, (a, b) in differences.items()
        ]
        caption = f"configs of {result['reference']} and {name}"
        columns = ("key", result["reference"], name)
        tables.append((caption, columns, lines or [("no difference", "", "")]))
    return tables


def _word(value: object) -> str:
    """Return a setting as a table has it: a hash by its first digits, whole only in the JSON."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", text) else text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _with_ends(found: Mapping[str, Any]) -> list[str]:
    cells = []
    for number, value in enumerate(found["difference"]):
        text = "-" if value is None else f"{value:+.3f}"
        if value is not None and found["low"] is not None and found["low"][number] is not None:
            text += f" [{found['low'][number]:+.3f}, {found['high'][number]:+.3f}]"
        cells.append(text)
    return cells
