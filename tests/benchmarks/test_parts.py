"""The table of the learned parts: what each is above what it replaces."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.core.training.conftest import TINY
from vlwm.core.config.load import load_config
from vlwm.core.training.startup.train_data import open_data

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import parts


def given(*words: object) -> argparse.Namespace:
    """Read a command line as the command does."""
    return parts.parser().parse_args([str(word) for word in words])


def small(root: Path, settings: list[str], out: Path) -> list[object]:
    """Return the options of a small run."""
    head = ["--data", root, "--out", out, "--config", "test_local", "--windows", 2]
    return [*head, "--set", *settings]


def row(part: str, seed: int, hits: int, clusters: int = 30) -> dict:
    """A part that finds `hits` of 100 cells in every zone, horizon and cluster."""
    counts = np.zeros((2, 6, 4, 4), np.int64)
    counts[...] = (hits, 100, 100, 1000)
    return {
        "part": part,
        "seed": seed,
        "minutes": 1.0,
        "residual_weight": {"predicted": 0.0, "plan": 0.0},
        "clusters": {f"c{i}": counts.tolist() for i in range(clusters)},
    }


def test_the_table_pools_seeds_and_gives_the_difference_to_what_is_replaced() -> None:
    rows = [row("planes_edges", 0, 50), row("fusion_planes", 0, 60), row("fusion_planes", 1, 80)]
    text = parts.table(rows)
    (line,) = {line for line in text.splitlines() if "over planes_edges" in line}
    # 140 of 260 against 50 of 150
    assert f"{140 / 260 - 50 / 150:+.4f}" in line
    assert f"by seed, mean IoU: {60 / 140 - 1 / 3:+.4f} {80 / 120 - 1 / 3:+.4f}" in line
    assert "| fusion_planes | 2 |" in text


def test_too_few_clusters_have_no_interval() -> None:
    rows = [row("planes_edges", 0, 50, 29), row("fusion_planes", 0, 60, 29)]
    assert "over planes_edges" not in parts.table(rows)


@pytest.mark.parametrize("name", parts.LEARNED)
def test_a_part_is_on_in_its_own_row_and_what_it_replaces_is_a_row(name: str) -> None:
    config = parts.config_of(name, load_config("tokyo_small"), 1)
    assert config.model.fusion_planes == (name != "fusion")
    assert config.model.use_tokens == (name == "tokens")
    assert config.seed == 1
    assert set(parts.REPLACES[name]) <= {*parts.PLAIN, *parts.LEARNED}


def test_a_finished_file_is_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "parts.jsonl"
    parts.write_line(out, row("votes", 0, 50))
    parts.run(given("--data", "nowhere", "--out", out, "--parts", "votes", "--seeds", 0))
    assert len(out.read_text().splitlines()) == 1


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A small made-up city, and the settings that go with it."""
    root = tmp_path_factory.mktemp("data")
    open_data(load_config("test_local", (*TINY, f"data_root={str(root)!r}")), lambda: None)
    return root, list(TINY)


def test_every_part_learns_and_is_scored(
    city: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOTION", ())
    root, settings = city
    out = tmp_path / "parts.jsonl"
    parts.run(given(*small(root, settings, out), "--minutes", 0.003, "--seeds", 0))
    rows = {row["part"]: row for row in parts.read_lines(out)}
    assert set(rows) == {*parts.PLAIN, *parts.LEARNED}
    assert set(rows["tokens"]["steps"]) == {"tokenizer", "fusion", "world"}
    assert set(rows["residual"]["steps"]) == {"fusion", "world"}
    # the same cells of the same windows for every part: truth and cells agree
    truths = [np.array(list(row["clusters"].values()))[..., 2:] for row in rows.values()]
    assert all((truth == truths[0]).all() for truth in truths)


@pytest.mark.parametrize("learned_from", ["the data", "another folder"])
def test_the_command_scores_a_part(
    learned_from: str,
    city: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every option that the code reads is one that the command knows."""
    root, settings = city
    monkeypatch.setattr(parts, "MOTION", ())
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    out = tmp_path / "parts.jsonl"
    words = [*small(root, settings, out), "--parts", "mean"]
    if learned_from == "another folder":
        other = shutil.copytree(root, tmp_path / "train")
        words += ["--train", other]
    monkeypatch.setattr(sys, "argv", ["parts.py", *map(str, words)])
    parts.main()
    (line,) = parts.read_lines(out)
    assert line["part"] == "mean"
    assert line["clusters"]


def test_with_train_the_data_are_only_scored(city: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, settings = city
    other = shutil.copytree(root, tmp_path / "train")
    words = small(root, settings, tmp_path / "parts.jsonl")
    bench = parts.Bench(given(*words, "--train", other))
    assert bench.folder.store.root == root
    assert bench.source.store.root == other


def test_planes_learned_for_no_time_are_the_planes(
    city: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """The network on top of the planes begins at them: both forecasts agree to rounding."""
    root, settings = city
    bench = parts.Bench(given(*small(root, settings, tmp_path / "parts.jsonl")))
    plain = parts.Plain("planes_edges", bench)
    model, _ = parts.trained("fusion_planes", bench, 0, 0.0)
    learned = parts.Learned(model)
    for batch, window in bench.windows(bench.folder, bench.test):
        ours, theirs = (said(batch, window) for said in (learned, plain))
        for track in parts.TRACKS:
            for (mine, _), (other, _) in zip(ours[track], theirs[track], strict=True):
                # READING_SCALE is steeper than a logit, but both order the cells alike
                sure = (other.sigmoid() - 0.5).abs() > 0.3
                assert ((mine > 0) == (other > 0))[sure].float().mean() > 0.99
