"""A machine is lost with its disk: the run goes on from its backup on a blank one, bit for bit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from vlwm.core.files import read_json
from vlwm.core.model.checkpoint import load_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.store.backup import newest_copy
from vlwm.core.store.objects import open_store

OFTEN = ("--set", "checkpoint_config.minutes=0.001")


def assert_same(tiny: Any, left: Path, right: Path) -> None:
    """What a backup holds: last and best checkpoint of both stages, logs and scores.

    Checkpoints of single epochs are not copied.
    """
    for stage in (".", "tokenizer"):
        for name in ("last.pth", "best.pth"):
            one, other = (load_checkpoint(run / stage / name) for run in (left, right))
            for content in (one, other):
                del content["metrics_offset"], content["config"], content["versions"]
            for key in one:
                assert tiny.same(one[key], other[key]), f"{stage}/{name}: {key} differs"
        assert tiny.lines(RunFolder(left / stage)) == tiny.lines(RunFolder(right / stage))
    assert read_json(left / "scores.json") == read_json(right / "scores.json")


@pytest.mark.ci
@pytest.mark.parametrize("stage", ["tokenizer", "world"])
def test_a_lost_box_costs_what_lies_since_the_last_copy(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path, stage: str
) -> None:
    url, first = (tmp_path / "safe").as_uri(), tmp_path / "box1" / "run"
    child = tiny.process(first, tiny_data, "--backup", url, *OFTEN)
    tiny.wait_for(first, stage, 1, child)
    seen = newest_copy(open_store(url).list())
    while newest_copy(open_store(url).list()) == seen:  # a copy of this stage is whole
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.kill()
    child.communicate(timeout=60)
    shutil.rmtree(tmp_path / "box1")  # nothing but the backup is left
    second = tmp_path / "box2" / "run"
    code, _, err = tiny.finish(second, tiny_data, "--backup", url, "--resume", *OFTEN)
    assert code == 0, err
    assert f"files of the run came from {url}" in err
    assert_same(tiny, whole_run, second)
    # and the finished run is in the backup, whole
    third = tmp_path / "box3" / "run"
    code, _, err = tiny.finish(third, tiny_data, "--backup", url, "--resume", *OFTEN)
    assert code == 0 and "files of the run came from" in err, err
    assert RunFolder(third).scores_json.exists()
