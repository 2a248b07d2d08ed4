"""Write the model card of an exported folder: use, scores next to the baselines', data, limits.

The metadata are the Hub's (`huggingface_hub.ModelCardData`): licence, tags and one `EvalResult` a
track and horizon, each with its baseline in its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from vlwm.core.export.licence import Licence
from vlwm.core.text import safe_text
from vlwm.core.vocabulary import Track

TRACKS: dict[str, tuple[str, str]] = {
    Track.PREDICTED.value: ("predicted track", "memory_baseline"),
    Track.PLAN.value: ("plan track", "true_pose_memory"),
}
"""method -> its track in words, its baseline"""
_METRICS = {"iou": "IoU", "iou_structure": "structure IoU"}
_ROWS = (
    "model", "memory_baseline", "constant_velocity_warp", "copy_last",
    "model_plan", "true_pose_memory", "true_pose_warp",
)  # fmt: skip

_TEMPLATE = """---
{metadata}
---

# {name}

An occupancy world model, trained with vlwm: from {history} past frames of occupancy and poses
({dt:g} s apart) to the probability that each cell is occupied up to {reach:g} s ahead.

![{alt}](forecast.png)

## Use

```python
import vlwm

model = vlwm.load("{repo}")                  # this folder, or its name on the Hub
forecast = model.forecast(occupancy, poses)  # ({history}, {shape}) of 0 and 1, and ({history}, 13)
forecast.probability                         # ({future}, {shape})
```

Frames are in ego frames: x ahead, y left, z up from the terrain; the grid begins at {lower} m with
cells of {cell} m. Poses are x y z, qx qy qz qw, vx vy vz, wx wy wz in one world frame.

## Scores

Split **{split}**: {windows} windows in {clusters} clusters{few}. IoU over all cells, and structure
IoU over the cells above the ground of their column. The predicted track knows the past alone; the
plan track is given the future motion.

{table}

{verdict}

## Data and limits

- Training data: {attribution}
- Data hash: `{data_hash}`; initial weights: {initial}.
- The probabilities were calibrated on the validation split of this data; `scores.json` holds the
  reliability diagram. Other cities, sensors and flight styles were not tested.
- Where the forecast leaves its grid it gives no answer; that is not the same as free.

## Licence

`{licence}`. {why}{restriction}
"""


def model_card(
    about: Mapping[str, Any],
    sheet: Mapping[str, Any],
    terms: Licence,
    *,
    name: str = "Occupancy world model",
    repo: str = "user/name",
) -> str:
    """Return the README.md of an exported folder.

    Args:
        about: content of forecast.json.
        sheet: content of scores.json.
        terms: the licence and its sources.
        name: heading of the card.
        repo: name on the Hub that the example loads.
    """
    grid = about["grid"]
    attribution = "a procedural city of vlwm" if about["procedural"] else about["attribution"]
    city = safe_text(attribution or "unknown")
    return _TEMPLATE.format(
        metadata=_metadata(sheet, terms, name).to_yaml(),
        name=name,
        history=about["history_frames"],
        future=len(about["horizons_s"]),
        dt=about["frame_dt_s"],
        reach=about["horizons_s"][-1],
        shape=", ".join(map(str, grid["shape"])),
        lower=_triple(grid["lower_m"]),
        cell=_triple(grid["cell_m"]),
        repo=repo,
        alt=f"A window of the split {sheet['split']}. {city}",
        split=sheet["split"],
        windows=sheet["n_windows"],
        clusters=sheet["n_clusters"],
        few=", too few for intervals" if sheet["too_few_clusters"] else "",
        table=_table(sheet),
        verdict=" ".join(_verdicts(sheet)),
        attribution=city,
        data_hash=about["data_hash"],
        initial=safe_text(about["initial_weights"] or "none"),
        licence=terms.identifier,
        why=safe_text(terms.why, 2000),
        restriction=terms.restriction_on("weights"),
    )


def _triple(values: Any) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"


def _metadata(sheet: Mapping[str, Any], terms: Licence, name: str) -> ModelCardData:
    return ModelCardData(
        license=terms.identifier,
        library_name="vlwm",
        tags=["occupancy", "world-model", "forecasting", "autonomous-vehicles", "drone"],
        model_name=name,
        eval_results=list(_eval_results(sheet)) or None,
    )


def _eval_results(sheet: Mapping[str, Any]) -> Iterator[EvalResult]:
    """Yield one result a track, metric and horizon, with its baseline."""
    scores = sheet["scores"]
    for method, (track, baseline) in TRACKS.items():
        if method not in scores:
            continue
        for key, words in _METRICS.items():
            baseline_scores = scores.get(baseline, {}).get(key)
            for number, (seconds, value) in enumerate(
                zip(sheet["horizons_s"], scores[method][key], strict=True)
            ):
                if value is None:
                    continue
                other = baseline_scores[number] if baseline_scores else None
                against = "" if other is None else f" ({baseline} {other:.3f})"
                yield EvalResult(
                    task_type="other",
                    task_name="occupancy forecasting",
                    dataset_type="vlwm-sessions",
                    dataset_name=f"split {sheet['split']} of the training city, by area",
                    dataset_split=sheet["split"],
                    metric_type=key,
                    metric_name=f"{words} at {seconds:g} s, {track}{against}",
                    metric_value=round(float(value), 4),
                )


def _table(sheet: Mapping[str, Any]) -> str:
    """Return the scores of the model and the baselines at each horizon in Markdown."""
    heads = [f"{s:g} s" for s in sheet["horizons_s"]]
    lines = []
    for key, words in _METRICS.items():
        lines += [f"| {words} | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
        for method in (m for m in _ROWS if m in sheet["scores"]):
            cells = ["–" if v is None else f"{v:.3f}" for v in sheet["scores"][method][key]]
            name = f"**{method}**" if method in TRACKS else method
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _verdicts(sheet: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence a track: at how many horizons the model beats its baseline."""
    scores = sheet["scores"]
    for method, (track, baseline) in TRACKS.items():
        if method not in scores or baseline not in scores:
            continue
        pairs = zip(scores[method]["iou"], scores[baseline]["iou"], strict=True)
        wins = [a > b for a, b in pairs if a is not None and b is not None]
        yield (
            f"On the {track} the model has the higher IoU than `{baseline}` at {sum(wins)} of "
            f"{len(wins)} horizons."
        )
