"""Runs are compared on the same windows, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from vlwm.core.errors import DataError
from vlwm.core.evaluation.accumulators import Tally
from vlwm.core.report.comparison import Compared, comparison, comparison_tables, config_differences

METHODS = ("model", "model_plan", "memory_baseline")


def run(name: str, lift: int, clusters: int = 40, data: str = "a") -> Compared:
    """Windows whose hits differ widely, and `lift` more hits in each."""
    rng, tally = np.random.default_rng(0), Tally(METHODS, 2)
    for number in range(clusters):
        true = rng.integers(100, 1000, (2, 4))  # (H, Z)
        counts = np.zeros((3, 2, 4, 4), np.int64)
        counts[..., 0] = true // 2 + lift  # hits
        counts[..., 1] = counts[..., 2] = true
        counts[..., 3] = 10_000
        tally.add(counts, number, [])
    return Compared(name, tally, {"optimizer": {"lr": 1e-3 * (1 + lift)}, "seed": 1}, data)


def test_a_run_beside_itself_differs_in_nothing() -> None:
    found = comparison([run("a", 0), run("b", 0)], [0.5, 1.0])
    difference = found["differences"]["b"]["model"]["iou"]
    assert difference["difference"] == [0.0, 0.0] == difference["low"] == difference["high"]
    assert found["configs"]["b"] == {}


def test_a_small_gain_in_every_window_is_seen_through_their_spread() -> None:
    """Windows differ far more than the runs do: only paired resamples exclude zero."""
    found = comparison([run("a", 0), run("b", 5)], [0.5, 1.0])
    pair = found["differences"]["b"]["model_plan"]["iou_structure"]
    for difference, low, high in zip(pair["difference"], pair["low"], pair["high"], strict=True):
        assert 0 < low < difference < high < 0.05
    assert found["configs"]["b"] == {"optimizer.lr": [1e-3, 6e-3]}


def test_the_table_says_what_differs() -> None:
    (caption, columns, rows), (_, _, configs) = comparison_tables(
        comparison([run("a", 0, 5), run("b", 5, 5)], [0.5, 1.0])
    )
    assert "too few clusters" in caption and columns == ("run", "0.5 s", "1 s")
    assert rows[0] == ("model, iou",) and rows[2][0] == "b less a" and rows[2][1].startswith("+")
    assert configs == [("optimizer.lr", "0.001", "0.006")]


def test_a_hash_does_not_push_the_other_column_out_of_sight() -> None:
    found = comparison([run("a", 0), run("b", 0)], [0.5, 1.0])
    found["configs"]["b"] = {"trained.data_hash": ["ab" * 32, "cd" * 32], "seed": [1, 2]}
    _, (_, _, rows) = comparison_tables(found)
    assert rows[0] == ("trained.data_hash", "ab" * 6 + "…", "cd" * 6 + "…")
    assert rows[1] == ("seed", "1", "2")


def test_other_windows_are_refused() -> None:
    for other in (run("b", 0, 39), run("b", 0, data="b")):
        with pytest.raises(DataError, match="are not evaluated on the same windows"):
            comparison([run("a", 0), other], [0.5, 1.0])


def test_configs_differ_by_key() -> None:
    assert config_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "d": 3}) == {
        "c": [2, None], "d": [None, 3],
    }  # fmt: skip
