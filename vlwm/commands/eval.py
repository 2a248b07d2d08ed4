"""`vlwm eval`: a checkpoint, or the baselines alone, to a score sheet, a table and pictures."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlwm.commands.options import eval as opt
from vlwm.commands.shared.data import PackedDir, local_data
from vlwm.core.vocabulary import Split

if TYPE_CHECKING:
    from collections.abc import Callable

    from vlwm.core.engines import Engine
    from vlwm.core.evaluation.accumulators import Tally
    from vlwm.core.evaluation.baselines.fitted import FittedBaselines
    from vlwm.core.evaluation.baselines.tri_state import TriState
    from vlwm.core.evaluation.evaluator import Scores
    from vlwm.core.evaluation.load import EvalData, Opened
    from vlwm.core.evaluation.window_work import Progress, WindowWork

_WIDE = 140  # columns of a terminal
_SPLITS = (*Split, "all")


def evaluate(
    run: opt.Run = None,
    split: opt.Split = Split.TEST.value,
    data: opt.Data = None,
    packed_dir: PackedDir = None,
    baselines_only: opt.BaselinesOnly = False,
    config: opt.Config = None,
    max_windows: opt.MaxWindows = 0,
    json_: opt.Json = False,
    output: opt.Output = None,
    picture: opt.Picture = None,
    video: opt.Video = None,
    report: opt.Report = None,
    mcap: opt.Mcap = None,
    compare: opt.Compare = False,
    batch_size: opt.BatchSize = 1,
    engine: opt.Engine = None,
    workers: opt.Workers = 0,
) -> None:
    """Evaluate a checkpoint against all non-learned baselines (docs/evaluation.md).

    Examples:

      [cyan]vlwm eval ./test_out --video forecast.webm --report report[/]

      [cyan]vlwm eval best.pth --data data/matsumoto --split all --json[/]

      [cyan]vlwm eval --baselines-only --config tokyo_small --data data/tokyo_gazebo[/]

      [cyan]vlwm eval --compare checkpoints test_out[/]
    """
    from vlwm.commands.shared.output import emit_json, note
    from vlwm.commands.shared.release import release_folder, results_folder, tell_reproduction

    _check(split, baselines_only, config)
    runner = _engine(engine, workers)
    _check_outputs(output, picture, video)
    runs = run or [Path("checkpoints")]
    own = local_data(data, packed_dir)
    if compare:
        one = _Request(runs[0], split, data, packed_dir, None, max_windows, None)
        _compare(runs, one, own, batch_size, runner, report, json_=json_)
        return
    _check_single(runs)
    release = None if baselines_only else release_folder(runs[0])
    request = _Request(runs[0], split, data, packed_dir, config, max_windows, release)
    opened = _open(request, own)
    scores = _score(opened, request, batch_size, runner)
    if not json_:
        _print(scores)  # before anything is drawn, which takes minutes
    target = output or (opened.folder if release is None else results_folder(runs[0]))
    written = _draw(scores, opened, target, picture, video)
    if release is not None:
        tell_reproduction(release, scores)
    written += _further_files(scores, opened, mcap, report, video)
    if json_:
        emit_json(scores)
    for path in written:
        note(f"written: {path}")


@dataclass(frozen=True)
class _Request:
    """Names what to evaluate; a worker opens it by itself.

    Attributes:
        run: run folder, checkpoint file or exported folder.
        split, data, packed_dir, config, max_windows: the options.
        release: the exported folder; None for a run.
        fitted, tri_state: parameters of baselines that no checkpoint has.
    """

    run: Path
    split: str
    data: str | None
    packed_dir: Path | None
    config: str | None
    max_windows: int
    release: Path | None
    fitted: FittedBaselines | None = None
    tri_state: TriState | None = None

    def __call__(self) -> Opened:
        """Open the run and its data in a worker; a store is fetched into the worker's cache."""
        from vlwm.commands.shared.release import release_folder
        from vlwm.core.evaluation.load import EvalData

        own = local_data(self.data, self.packed_dir)
        chosen = EvalData(
            self.split, own, self.max_windows, fitted=self.fitted, tri_state=self.tri_state
        )
        if self.release is None or self.release.exists():
            return self.opened(chosen)
        return replace(self, release=release_folder(self.run)).opened(chosen)  # from the Hub

    def opened(self, chosen: EvalData) -> Opened:
        """Open the run, the exported folder or the baselines alone with chosen windows."""
        from vlwm.core.config.load import load_config
        from vlwm.core.evaluation.load import open_baselines, open_run

        if self.release is not None:
            from vlwm.core.export.benchmark import open_release

            return open_release(self.release, chosen)
        if self.config is None:
            return open_run(self.run, chosen)
        return open_baselines(load_config(self.config), chosen)


def _score(opened: Opened, request: _Request, batch_size: int, engine: Engine | None) -> Scores:
    """Return the scores of what was opened, with its progress on stderr."""
    from vlwm.commands.shared.output import note
    from vlwm.core.evaluation.evaluator import score_subject

    note(_announcement(opened, request.split))
    return score_subject(
        opened.subject,
        request.split,
        None if opened.checkpoint is None else str(opened.checkpoint),
        batch_size=batch_size,
        progress=_progress(),
        engine=engine,
        work=None if engine is None or not engine.elsewhere else _work(opened, request),
    )


def _compare(
    runs: list[Path],
    one: _Request,
    own: Path | None,
    batch_size: int,
    engine: Engine | None,
    report: Path | None,
    *,
    json_: bool,
) -> None:
    """Evaluate several runs on the same windows and print the differences.

    Args:
        one: what holds for each of them, but for the run.
        own: the data folder on this machine; None: that of each run.
    """
    from vlwm.commands.shared.compare import compare_runs

    def count(path: Path, opened: Opened) -> Tally:
        return _count(opened, replace(one, run=path), batch_size, engine)

    compare_runs(runs, one.split, own, one.max_windows, report, json_=json_, count=count)


def _count(opened: Opened, request: _Request, batch_size: int, engine: Engine | None) -> Tally:
    """Return the counts of all windows of one run of a comparison."""
    from vlwm.core.evaluation.window_work import tally_windows

    work = None if engine is None or not engine.elsewhere else _work(opened, request)
    return tally_windows(opened.subject, batch_size, _progress(), engine, work)


def _work(opened: Opened, request: _Request) -> WindowWork:
    """Return what the workers of an engine are to do."""
    from vlwm.core.evaluation.window_work import WindowWork, fingerprint

    scorer = opened.subject.scorer
    whole = replace(
        request,
        run=Path(_absolute(str(request.run)) or request.run),
        data=_absolute(request.data),
        config=_absolute(request.config),
        packed_dir=request.packed_dir and request.packed_dir.resolve(),
        fitted=scorer.fitted if opened.fitted_here else None,
        tri_state=scorer.tri_state,
    )
    return WindowWork(str(request.run), whole, *fingerprint(opened))


def _absolute(name: str | None) -> str | None:
    """Return the absolute path of what is here; names of presets and the Hub and URLs as is."""
    return name if name is None or not Path(name).exists() else str(Path(name).resolve())


def _engine(text: str | None, workers: int) -> Engine | None:
    """Return the engine of --engine; None without the option.

    Raises:
        UsageError: it is unknown.
    """
    from vlwm.core.engines import open_engine
    from vlwm.core.hardware.host import usable_workers

    if text is None:
        return None
    if text == "local":
        return open_engine(text, 1)  # torch uses the cores of this machine by itself
    return open_engine(text, workers or usable_workers())


def _draw(
    scores: Scores, opened: Opened, target: Path | None, picture: Path | None, video: Path | None
) -> list[Path]:
    """Write scores, charts, picture and film."""
    from vlwm.core.figures.eval_figures import write_results  # torch: after all checks

    return write_results(scores, opened.subject, target, picture=picture, video=video)


def _further_files(
    scores: Scores, opened: Opened, mcap: Path | None, report: Path | None, video: Path | None
) -> list[Path]:
    """Write the windows for Foxglove and the report where they are asked for; return the files."""
    from vlwm.commands.shared.mcap import write_windows

    written = []
    if mcap is not None:
        written.append(write_windows(mcap, opened.subject))
    if report is not None:
        written.append(_report(report, scores, opened, video))
    return written


def _check_single(runs: list[Path]) -> None:
    from vlwm.core.errors import UsageError

    if len(runs) > 1:
        raise UsageError(
            f"{len(runs)} runs were given", remedy="add --compare, or evaluate one at a time"
        )


def _report(folder: Path, scores: Scores, opened: Opened, video: Path | None) -> Path:
    """Write report.html of an evaluation, with its film where one was asked for."""
    import shlex
    import sys

    from vlwm.core.report.film import page_film
    from vlwm.core.report.run_report import write_run_report

    return write_run_report(
        folder,
        scores,
        run=opened.folder,
        subject=opened.subject,
        command=shlex.join(["vlwm", *sys.argv[1:]]),
        film=None if video is None else page_film(opened.subject),
    )


def _check_outputs(output: Path | None, picture: Path | None, video: Path | None) -> None:
    """Refuse places that cannot be written before anything is computed."""
    import os

    from vlwm.core.errors import UsageError
    from vlwm.core.files import make_folder

    if video is not None:
        from vlwm.core.figures.video import check_video_name

        check_video_name(video)
    for folder in (output, *(path.parent for path in (picture, video) if path is not None)):
        if folder is not None and not os.access(make_folder(folder), os.W_OK):
            raise UsageError(
                "this folder cannot be written", where=folder, remedy="choose another one"
            )


def _check(split: str, baselines_only: bool, config: str | None) -> None:
    from vlwm.core.errors import UsageError, nearest

    if split not in _SPLITS:
        close = nearest(split, _SPLITS)
        remedy = f"did you mean {close}?" if close else f"use one of {', '.join(_SPLITS)}"
        raise UsageError(f"--split {split} is unknown", remedy=remedy)
    if baselines_only and config is None:
        raise UsageError("--baselines-only needs --config", remedy="such as --config tokyo_small")
    if config is not None and not baselines_only:
        raise UsageError(
            "--config is not needed: the checkpoint contains its config",
            remedy="leave --config out, or add --baselines-only",
        )


def _open(request: _Request, own: Path | None) -> Opened:
    """Open what was asked for here, and say what takes long.

    Args:
        own: the local folder of --data.
    """
    from vlwm.commands.shared.output import note
    from vlwm.core.evaluation.load import EvalData

    spoken = _now_and_then()

    def packing(name: str, done: int, total: int) -> None:
        if spoken():
            note(f"packing {name}, {done} of {total} sessions")

    def fitting(done: int, total: int) -> None:
        if spoken():
            note(f"fitting the baselines, {done} of {total} validation windows")

    return request.opened(EvalData(request.split, own, request.max_windows, packing, fitting))


def _announcement(opened: Opened, split: str) -> str:
    subject = opened.subject
    what = "the methods without learning" if opened.checkpoint is None else opened.checkpoint
    few = len(subject.windows)
    of = f" of {subject.available}" if few < subject.available else ""
    left_out = len(subject.store.damaged)
    damaged = f"; {left_out} damaged frames were left out" if left_out else ""
    return f"scoring {what} on {few}{of} windows of split {split}, {subject.device}{damaged}"


def _now_and_then(every_s: float = 10.0) -> Callable[[], bool]:
    """Return True at most once in `every_s` seconds, first after that time."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s:
            return False
        last = now
        return True

    return due


def _progress() -> Progress:
    """Print a line on stderr now and then."""
    from vlwm.commands.shared.output import note

    start, due = time.monotonic(), _now_and_then()

    def tell(done: int, total: int) -> None:
        if done < total and due():
            left_s = (time.monotonic() - start) / done * (total - done)
            note(f"{done} of {total} windows, about {left_s:.0f} s left")

    return tell


def _print(scores: Scores) -> None:
    """Print the table for people; narrow terminals get fewer columns."""
    from vlwm.commands.shared.output import console, print_table
    from vlwm.core.evaluation.scores.class_table import class_tables
    from vlwm.core.evaluation.scores.score_table import score_table

    table = score_table(scores, wide=console().width >= _WIDE)
    columns = [name.replace(" ", "\n", 1) for name in table.columns]
    print_table(table.title, columns, table.rows)
    for sentence in table.sentences:
        console().print(sentence, markup=False)
    for more in class_tables(scores):
        print_table(more.title, more.columns, more.rows)
        for sentence in more.sentences:
            console().print(sentence, markup=False)
