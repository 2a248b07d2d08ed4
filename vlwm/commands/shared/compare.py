"""`vlwm eval --compare A B …`: several runs on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlwm.core.evaluation.accumulators import Tally
    from vlwm.core.evaluation.load import Opened


def compare_runs(
    runs: Sequence[Path],
    split: str,
    data: Path | None,
    max_windows: int,
    report: Path | None,
    *,
    json_: bool,
    count: Callable[[Path, Opened], Tally],
) -> None:
    """Evaluate each run on the windows of the first and print the differences.

    Args:
        count: returns the counts of all windows of a run that is open.

    Raises:
        UsageError: fewer than two runs.
        DataError: the runs do not see the same windows.
    """
    from vlwm.commands.shared.output import emit_json, note, print_table
    from vlwm.core.errors import UsageError
    from vlwm.core.evaluation.load import EvalData, open_run
    from vlwm.core.report.comparison import (
        Compared,
        check_same_windows,
        comparison,
        comparison_tables,
    )
    from vlwm.core.report.run_report import write_comparison_report

    if len(runs) < 2:
        raise UsageError("--compare needs two runs", remedy="such as vlwm eval --compare A B")
    found: list[Compared] = []
    horizons: list[float] = []
    every = [(run, open_run(run, EvalData(split, data, max_windows))) for run in runs]
    check_same_windows([(str(run), opened.subject) for run, opened in every])
    for run, opened in every:
        subject = opened.subject
        note(f"evaluating {run} on {len(subject.windows)} windows of split {split}")
        model = subject.scorer.model
        config = {} if model is None else model.config.to_dict() | _training(opened)
        tally = count(run, opened)
        found.append(Compared(str(run), tally, config, subject.store.data_hash))
        horizons = [float(s) for s in subject.scorer.horizons_s]
    result = comparison(found, horizons)
    if json_:
        emit_json(result)
    else:
        for caption, columns, rows in comparison_tables(result):
            print_table(caption, columns, rows)
    if report is not None:
        note(f"written: {write_comparison_report(report, result)}")


def _training(opened: Opened) -> dict[str, Any]:
    """Return the data that a run was trained on and where it began, from its checkpoint."""
    from vlwm.core.model.checkpoint import load_checkpoint

    content = {} if opened.checkpoint is None else load_checkpoint(opened.checkpoint)
    keys = ("data_hash", "attribution", "initial_weights", "epoch")
    return {"trained": {key: content.get(key) for key in keys}}
