"""What the benchmarks that look at a trained run have in common: which run, which windows."""

from __future__ import annotations

import argparse
from pathlib import Path

from vlwm.core.evaluation.evaluator import Subject
from vlwm.core.evaluation.load import EvalData, open_run


def parser_of(doc: str, windows: int) -> argparse.ArgumentParser:
    """Options --run, --data, --split and --windows; a benchmark adds its own.

    Args:
        doc: of the benchmark; its first line describes it.
        windows: looked at unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder or checkpoint")
    parser.add_argument("--data", type=Path, help="other data than the run's own")
    parser.add_argument("--split", default="test")
    parser.add_argument("--windows", type=int, default=windows, help="looked at; 0: all")
    return parser


def subject_of(given: argparse.Namespace) -> Subject:
    """The run and the windows that the options name."""
    return open_run(given.run, EvalData(given.split, given.data, given.windows)).subject
