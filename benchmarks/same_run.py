"""Compare two runs bit for bit: metric lines, weights by the key map, scores.

    python benchmarks/same_run.py RUN OTHER

Runs of two versions of the code on the same data with the same seed. Weights of older checkpoints
get their names of today first. Printed for each stage: metric lines and the numbers that differ in
them, tensors and those that differ; then the scores that both sheets have.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vlwm.core.files import read_json
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder

TIMES = ("time", "windows_per_s", "frames_per_s", "loader_share", "memory_gb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2, type=Path)
    given = parser.parse_args()
    left, right = (RunFolder(path) for path in given.runs)
    for name, one, other in (("tokenizer", left.tokenizer, right.tokenizer),
                             ("world model", left, right)):  # fmt: skip
        print(f"{name}: {lines_differ(one, other)}")
        print(f"{name}: {weights_differ(one.last, other.last)}")
    sheets = [read_json(run.path / "scores.json")["scores"] for run in (left, right)]
    pairs = [(where, a, b) for where, a, b in shared(*sheets)]
    apart = Counter(where.split("/")[0] for where, a, b in pairs if a != b)
    print(f"scores: {len(pairs)} in both sheets, {sum(apart.values())} differ {dict(apart)}")


def lines_differ(one: RunFolder, other: RunFolder) -> str:
    """Return how many metric lines are equal, and which numbers of them differ."""
    left, right = (run.read_metrics()[0] for run in (one, other))
    apart: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    equal = 0
    for a, b in zip(left, right, strict=False):
        names = {key for key in {*a, *b} if key not in TIMES}
        alone.update(key for key in names if (key in a) != (key in b))
        found = [key for key in names if key in a and key in b and a[key] != b[key]]
        apart.update(found)
        equal += not found
    return (
        f"{len(left)} and {len(right)} metric lines, {equal} equal in what both have; "
        f"different: {dict(apart) or 'nothing'}; in one alone: {dict(alone) or 'nothing'}"
    )


def weights_differ(one: Path, other: Path) -> str:
    """Return how many tensors of two checkpoints are equal."""
    left, right = (load_checkpoint(path)["model"] for path in (one, other))
    both = [key for key in left if key in right]
    apart = [key for key in both if not torch.equal(left[key], right[key])]
    alone = sorted(set(left) ^ set(right))
    return (
        f"{len(both)} tensors in both, {len(both) - len(apart)} equal; "
        f"different: {apart[:6] or 'nothing'}; in one alone: {alone[:6] or 'nothing'}"
    )


def shared(a: Any, b: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the leaves that two trees have at the same places."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in a:
            if key in b:
                yield from shared(a[key], b[key], f"{where}/{key}".lstrip("/"))
    elif isinstance(a, list) and isinstance(b, list):
        for n, (one, other) in enumerate(zip(a, b, strict=False)):
            yield from shared(one, other, f"{where}/{n}")
    else:
        yield where, a, b


if __name__ == "__main__":
    main()
