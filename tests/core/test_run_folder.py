"""The run folder is read while another process writes it."""

from __future__ import annotations

import json
from pathlib import Path

from vlwm.core.run_folder import RunFolder


def test_metrics_are_followed_line_by_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.read_metrics() == ([], 0)
    run.metrics_jsonl.write_text('{"step": 1}\nnot json\n{"step": 2}\n{"st')
    records, offset = run.read_metrics()
    assert [r["step"] for r in records] == [1, 2]
    with open(run.metrics_jsonl, "a") as handle:
        handle.write('ep": 3}\n')
    records, offset = run.read_metrics(offset)
    assert [r["step"] for r in records] == [3]


def test_a_file_that_shrank_is_read_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics_jsonl.write_text("".join(json.dumps({"step": i}) + "\n" for i in range(9)))
    _, offset = run.read_metrics()
    run.metrics_jsonl.write_text('{"step": 0}\n')
    records, offset = run.read_metrics(offset)
    assert [r["step"] for r in records] == [0]
    assert offset == run.metrics_jsonl.stat().st_size


def test_checkpoints_are_listed_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name in ("epoch_10.pth", "epoch_5.pth", "best.pth", "last.pth", ".last.pth.1.tmp", "x.pth"):
        (tmp_path / name).touch()
    names = [p.name for p in run.checkpoints()]
    assert names == ["epoch_5.pth", "epoch_10.pth", "best.pth", "last.pth"]
    assert run.holds_a_run()
    assert run.epoch(5).name == "epoch_5.pth"


def test_status_round_trip(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.read_status() is None
    run.write_status({"state": "running", "step": 3})
    assert run.read_status() == {"state": "running", "step": 3}
    assert run.tokenizer.path == tmp_path / "tokenizer"
