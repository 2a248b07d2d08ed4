"""Gather what a report of a run shows, and write report.html.

From the score sheet and the run folder alone it costs nothing (`write_run_report` at the end of a
training); with the subject of an evaluation it shows windows and tracks as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from vlwm import __version__
from vlwm.core.data.splits import Splits
from vlwm.core.evaluation.evaluator import Scores, Subject
from vlwm.core.evaluation.scores.class_table import class_tables
from vlwm.core.evaluation.scores.score_table import score_table
from vlwm.core.figures.canvas import HeightScale
from vlwm.core.figures.eval_figures import notes_of
from vlwm.core.figures.window_figure import window_png
from vlwm.core.files import make_folder, write_text
from vlwm.core.report.charts import reliability_chart, score_charts, training_charts
from vlwm.core.report.city_map import map_legend, map_svg, tracks_of
from vlwm.core.report.comparison import comparison_tables
from vlwm.core.report.page import ReportContent, ShownWindow, render
from vlwm.core.report.svg import Chart, Line
from vlwm.core.report.windows import ReportWindow, chosen_windows, windows_json
from vlwm.core.run_folder import RunFolder
from vlwm.core.vocabulary import Track

REPORT = "report.html"
MOST_BYTES = 3_000_000
"""a page stays below this: windows are left out where it would not"""
_WINDOW_BYTES = 1_900_000
_RUNS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def write_run_report(
    folder: Path,
    sheet: Scores,
    *,
    run: Path | None,
    subject: Subject | None = None,
    command: str = "",
    more: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = (),
    film: bytes | None = None,
) -> Path:
    """Write report.html into `folder`; returns its path.

    Args:
        folder: made where it is missing.
        sheet: content of scores.json.
        run: the run folder, for curves of training and provenance; None for baselines alone.
        subject: of the evaluation, for windows and tracks; None leaves them out.
        command: that made the sheet, for the provenance.
        more: further tables (caption, columns, rows), such as of a comparison.
        film: a WebM video to embed, of `film.page_film`; windows make room for it.
    """
    room = _WINDOW_BYTES - (0 if film is None else len(film) * 4 // 3)
    content = _content(sheet, run, subject, command, room)
    content = replace(content, tables=[*content.tables, *more], film=film)
    page = render(content)
    make_folder(folder)
    write_text(folder / REPORT, page)
    return folder / REPORT


def write_comparison_report(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write report.html of a comparison (`comparison.comparison`); returns its path."""
    names = list(result["scores"])
    charts = []
    for method, track in ((Track.PREDICTED, "predicted track"), (Track.PLAN, "plan track")):
        for key, words in (("iou", "IoU"), ("iou_structure", "structure IoU")):
            lines = [
                Line(name, _points(result, name, method, key), colour, strong=True)
                for name, colour in zip(names, cycle(_RUNS), strict=False)
            ]
            title = f"{words}, {track}"
            charts.append(Chart(title, "seconds ahead", words, lines, (0.0, 1.0)))
    content = ReportContent(
        title=f"Comparison with {result['reference']}",
        lead=["Every run saw the same windows; differences are paired."],
        tables=comparison_tables(result),
        scores=charts,
        facts=[("vlwm", __version__), ("runs", ", ".join(names))],
    )
    make_folder(folder)
    write_text(folder / REPORT, render(content))
    return folder / REPORT


def _points(
    result: Mapping[str, Any], name: str, method: str, key: str
) -> list[tuple[float, float]]:
    values = result["scores"][name].get(method, {}).get(key, [])
    pairs = zip(result["horizons_s"], values, strict=False)
    return [(s, v) for s, v in pairs if v is not None]


def _content(
    sheet: Scores, run: Path | None, subject: Subject | None, command: str, room: int
) -> ReportContent:
    table = score_table(sheet, wide=True)
    calibration = reliability_chart(sheet)
    world, tokenizer = _metrics(run)
    attribution = "" if sheet.get("procedural") else str(sheet.get("attribution") or "")
    content = ReportContent(
        title=_title(sheet, run),
        lead=[
            *_lead(sheet),
            *(s for s in table.sentences if not attribution or attribution not in s),
        ],
        tables=[(t.title, t.columns, t.rows) for t in (table, *class_tables(sheet))],
        scores=score_charts(sheet),
        calibration=[] if calibration is None else [calibration],
        training=training_charts(world, tokenizer),
        facts=_facts(sheet, run, command),
        attribution=attribution,
        city=(map_svg(_splits(run, subject), []), ""),
    )
    if subject is None:
        return content
    tracks = tracks_of(subject.store)
    shown = list(_windows(subject, sheet, room))
    return replace(
        content,
        windows=[window for window, _ in shown],
        forecasts=list(dict.fromkeys(name for _, found in shown for name in found.forecasts)),
        grid=_grid_json(subject, [found for _, found in shown]),
        city=(map_svg(_splits(run, subject), tracks), map_legend(tracks)),
    )


def _title(sheet: Scores, run: Path | None) -> str:
    name = "baselines" if run is None else (_config(run).get("name") or run.resolve().name)
    return f"{name}: forecasts of occupancy, split {sheet['split']}"


def _lead(sheet: Scores) -> list[str]:
    city = "a procedural city" if sheet.get("procedural") else "recorded or prepared sessions"
    few = "; too few clusters for intervals" if sheet["too_few_clusters"] else ""
    return [
        f"{sheet['n_windows']} windows in {sheet['n_clusters']} clusters of {city}{few}. "
        f"Horizons {sheet['horizons_s'][0]:g} to {sheet['horizons_s'][-1]:g} s."
    ]


def _metrics(run: Path | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if run is None:
        return [], []
    folder = RunFolder(run)
    return folder.read_metrics()[0], folder.tokenizer.read_metrics()[0]


def _config(run: Path) -> Mapping[str, Any]:
    path = RunFolder(run).config_json
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _splits(run: Path | None, subject: Subject | None) -> Splits | None:
    """Return the splits of the run, else those of the data folder."""
    places = [] if run is None else [RunFolder(run).splits_json]
    if subject is not None:
        places.append(Path(subject.store.root) / "splits.json")
    return next((Splits.read(path) for path in places if path.is_file()), None)


def _facts(sheet: Scores, run: Path | None, command: str) -> list[tuple[str, str]]:
    data = sheet.get("data") or {}
    config = {} if run is None else _config(run)
    grid = data.get("grid") or {}
    facts = [
        ("command", command),
        ("run", "" if run is None else str(run)),
        ("checkpoint", str(sheet.get("checkpoint") or "")),
        ("preset", str(config.get("name") or "")),
        ("epochs", str(config.get("max_epochs") or "")),
        ("load_from of the config", str(config.get("load_from") or "none") if config else ""),
        ("data", str(data.get("root") or "")),
        ("data hash", str(data.get("hash") or "")),
        ("sessions", str(data.get("sessions") or "")),
        ("cells", "×".join(map(str, grid.get("shape", [])))),
        ("cell size, m", "×".join(f"{v:g}" for v in grid.get("cell_m", []))),
        ("column prior", str(data.get("column_prior") or "")),
        ("damaged frames", str(data.get("damaged_frames", ""))),
        ("vlwm", __version__),
    ]
    return [(name, value) for name, value in facts if value]


def _windows(subject: Subject, sheet: Scores, room: int) -> list[tuple[ShownWindow, ReportWindow]]:
    found = []
    chosen = chosen_windows(subject, sheet.get("window_structure_iou") or [])
    for window, data in windows_json(chosen, subject, room):
        words = f"{window.kind}: {window.title}"
        if window.score == window.score:  # NaN without structure
            words += f", structure IoU {window.score:.3f}"
        png = window_png(window.figure(), subject.store.grid, title=words, notes=notes_of(subject))
        found.append((ShownWindow(words, data, png), window))
    return found


def _grid_json(subject: Subject, windows: list[ReportWindow]) -> str:
    grid = subject.store.grid
    scale = HeightScale.of(grid, *(w.truth for w in windows))
    return json.dumps(
        {"shape": grid.shape, "lower": grid.lower_m, "cell": grid.cell_m,
         "ground": scale.ground_m, "top": scale.top_m}
    )  # fmt: skip
