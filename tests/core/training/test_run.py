"""A run survives what a rented machine does to it; shown on real processes of the real command."""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlwm.core.config.load import load_config
from vlwm.core.data.splits import Splits
from vlwm.core.errors import DataError, MachineError, UsageError
from vlwm.core.files import read_json, write_json
from vlwm.core.model.checkpoint import load_checkpoint, load_world_model, save_checkpoint
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.run import train
from vlwm.core.training.startup import train_data
from vlwm.core.training.startup.resume import resumes_run, set_aside

_FILES = """epoch_1.pth epoch_2.pth best.pth last.pth logs config.json splits.json metrics.jsonl
status.json scores.json tokenizer"""
_NUMBERS = """train/loss loss/focal loss/dice loss/mean pred/mean pred/min pred/max target/mean
pred/occupancy_rate lr grad_norm epoch/val_loss epoch/lr val/iou val/iou_memory_baseline"""


def test_the_run_folder_holds_what_it_should(tiny: Any, whole_run: Path) -> None:
    names = {p.name for p in whole_run.iterdir()}
    assert set(_FILES.split()) <= names and len(list(whole_run.glob("train_*.log"))) == 1
    assert not list(whole_run.rglob("*.tmp"))
    status = RunFolder(whole_run).read_status()
    assert status is not None
    assert (status["state"], status["phase"], status["exit_code"]) == ("done", "done", 0)
    first = RunFolder(whole_run).tokenizer
    assert {"config.json", "splits.json", "logs", "metrics.jsonl", "best.pth"} <= {
        p.name for p in first.path.iterdir()
    }
    assert read_json(first.config_json) == read_json(whole_run / "config.json")
    assert (first.read_status() or {})["state"] == "done"
    assert "tokenizer epoch 1" in next(first.path.glob("train_*.log")).read_text()
    log = next(whole_run.glob("train_*.log")).read_text()
    for part in ("stage 1: tokenizer", "stage 2: world model"):  # when it ends, and its cost
        assert re.search(rf"{part}, .*; .* left, ends .*; \$0\.\d\d so far, about \$0", log)
    assert re.search(r"done in (\d+ min )?\d+ s; \$0\.\d\d in all", log)
    records = tiny.lines(RunFolder(whole_run))
    named = set().union(*records)
    assert set(_NUMBERS.split()) <= named
    model, content = load_world_model(whole_run / "best.pth")
    assert not model.training and 0.0 < content["threshold"] < 1.0
    assert {"git", "torch", "vlwm"} <= set(content["versions"]) and content["seed"] == 42
    assert len(content["data_hash"]) >= 16
    assert read_json(whole_run / "scores.json")["threshold"] == content["threshold"]


def test_no_secret_of_the_environment_is_in_a_run_folder(whole_run: Path) -> None:
    """Its process had keys of W&B, the Hub and AWS in its environment (forge.SECRETS)."""
    files = [path for path in whole_run.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [path for path in files if b"sesame" in path.read_bytes()]


def test_signals_in_both_stages_and_other_workers_change_no_bit(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    folder = tmp_path / "run"
    rng = random.Random(time.time_ns())
    steps = rng.randint(1, 6), rng.randint(1, 6)
    print("stopped at", steps)
    for stage, step, number, code in (
        ("tokenizer", steps[0], signal.SIGTERM, 75),
        ("world", steps[1], signal.SIGINT, 130),
    ):
        child = tiny.process(folder, tiny_data, "--workers", "2" if stage == "world" else "0")
        tiny.wait_for(folder, stage, step, child)
        child.send_signal(number)
        sent = time.monotonic()
        _, err = child.communicate(timeout=60)
        assert child.returncode == code, err
        assert time.monotonic() - sent < 20
        assert "resume with: vlwm train" in err and "--resume" in err
        status = RunFolder(folder).read_status()
        assert status is not None and status["state"] == "stopped"
        assert status["exit_code"] == code
    assert tiny.finish(folder, tiny_data, "--resume", "--workers", "2")[0] == 0
    tiny.assert_same_run(whole_run, folder)


PHASES = ("start", "prepare", "tokenizer", "save", "validate", "motion", "fusion", "world", "eval")


def wait_for_phase(folder: Path, phase: str, child: Any) -> bool:
    """Wait until status.json tells of a phase; False where the run was over before it was seen.

    It looks without a pause: the start takes a millisecond.
    """
    while child.poll() is None:
        status = RunFolder(folder).read_status() if (folder / "status.json").exists() else None
        if status is not None and status["pid"] == child.pid and status["phase"] == phase:
            return True
    return False


@pytest.mark.endurance
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_in_every_phase(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path, number: int, code: int
) -> None:
    """One run, stopped in each phase in turn, each time within ten seconds; then as if never."""
    folder, met = tmp_path / "run", 0
    for phase in PHASES:
        child = tiny.process(folder, tiny_data, fresh=True)
        if wait_for_phase(folder, phase, child):
            child.send_signal(number)
            sent = time.monotonic()
            _, err = child.communicate(timeout=60)
            took = time.monotonic() - sent
            print(
                f"{signal.Signals(number).name} in {phase}: exit {child.returncode}, {took:.1f} s"
            )
            assert child.returncode == code, err
            assert took < 10
            met += 1
        else:
            child.communicate()
    assert met == len(PHASES)
    assert tiny.finish(folder, tiny_data)[0] == 0
    tiny.assert_same_run(whole_run, folder)


@pytest.mark.endurance
@pytest.mark.timeout(3600)
def test_a_signal_while_compiling_is_answered_at_once(
    tiny: Any, tmp_path: Path, tiny_data: Path
) -> None:
    """Compilation asks for no signal and takes minutes; the first checkpoint is written before."""
    folder = tmp_path / "run"
    child = tiny.process(folder, tiny_data, "--compile", fresh=True)
    assert wait_for_phase(folder, "compile", child), child.communicate()
    time.sleep(1.0)
    child.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75 and time.monotonic() - sent < 10
    assert "progress is saved: resume with" in err
    assert load_checkpoint(folder / "tokenizer" / "last.pth")["step"] == 0
    status = RunFolder(folder).read_status()
    assert status is not None and (status["state"], status["exit_code"]) == ("stopped", 75)


def wait_until_at_work(folder: Path, child: Any) -> None:
    """Until this process, not the one before it, has opened its files."""
    while child.poll() is None:
        status = RunFolder(folder).read_status()
        if status is not None and status["pid"] == child.pid:
            return
        time.sleep(0.01)


def killed_runs(
    tiny: Any, root: Path, tiny_data: Path, kills: int, seed: int, *, fresh: bool = False
) -> list[Path]:
    """Runs that were killed at random moments, `kills` in all, each begun again to its end."""
    rng = random.Random(seed)
    runs = [root / "run_0"]
    while kills:
        often = ("--set", "checkpoint_config.minutes=0.001")
        child = tiny.process(runs[-1], tiny_data, *often, fresh=fresh)
        wait_until_at_work(runs[-1], child)
        time.sleep(rng.uniform(0.0, 4.0))
        child.kill()
        child.communicate(timeout=60)
        for path in (*runs[-1].glob("*.pth"), *runs[-1].glob("tokenizer/*.pth")):
            load_checkpoint(path)  # nothing half stands under a final name
        if read_json(runs[-1] / "status.json")["state"] == "done":
            runs.append(root / f"run_{len(runs)}")  # it was faster than the kill
        else:
            kills -= 1
    code, _, err = tiny.finish(runs[-1], tiny_data, "--set", "checkpoint_config.minutes=0.001")
    assert code == 0, err
    return runs


def assert_killed_runs_lose_nothing(runs: list[Path], tiny: Any, whole_run: Path) -> None:
    for folder in runs:
        tiny.assert_same_run(whole_run, folder)
        assert not list(folder.rglob("*.pth.*.tmp")) and not list(folder.glob("previous_*"))


def test_kill_9_loses_nothing_but_time(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    """The same command, typed again without --resume, goes on with the unfinished run."""
    runs = killed_runs(tiny, tmp_path, tiny_data, 2, seed=0)
    assert_killed_runs_lose_nothing(runs, tiny, whole_run)


@pytest.mark.endurance
@pytest.mark.timeout(3600)
def test_kill_9_thirty_times(tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path) -> None:
    runs = killed_runs(tiny, tmp_path, tiny_data, 30, seed=1, fresh=True)
    assert_killed_runs_lose_nothing(runs, tiny, whole_run)


def test_a_damaged_checkpoint_falls_back_and_says_so(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    last = folder / "last.pth"
    last.unlink()
    last.write_bytes((folder / "epoch_2.pth").read_bytes()[:-100])
    (folder / "epoch_2.pth").unlink()
    (folder / "best.pth").unlink()
    code, _, err = tiny.finish(folder, tiny_data, "--resume")
    assert code == 0, err
    assert "passed over" in err and "last.pth" in err and "epoch_1.pth" in err
    tiny.assert_same_run(whole_run, folder)


def test_a_finished_run_is_moved_aside_never_written_over(
    tiny: Any, whole_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    run = RunFolder(folder)
    config = load_config("test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}"))
    assert resumes_run(run, config, TrainOptions(folder))  # only evaluated again
    assert resumes_run(run, config, TrainOptions(folder, resume=True))
    assert not resumes_run(run, config, TrainOptions(folder, new_run=True))
    status = run.read_status()
    assert status is not None
    for state, code, answer in (("stopped", 75, True), ("running", None, True),
                                ("failed", 3, True)):  # fmt: skip
        run.write_status({**status, "state": state, "exit_code": code})
        assert resumes_run(run, config, TrainOptions(folder)) is answer
    run.write_status({**status, "state": "stopped"})
    with pytest.raises(UsageError, match="data_root"):
        resumes_run(run, load_config("test_local", tiny.overrides), TrainOptions(folder))
    before = {p.name for p in folder.iterdir()}
    aside = set_aside(run, tokenizer_too=True)
    assert aside is not None and {p.name for p in aside.iterdir()} == before
    assert list(folder.iterdir()) == [aside]
    assert set_aside(run, tokenizer_too=True) is None
    shutil.rmtree(aside)
    run.tokenizer.create()  # a process that was killed before its first checkpoint
    write_json(run.config_json, config.to_dict())
    assert set_aside(run, tokenizer_too=True) is None
    run.tokenizer.metrics_jsonl.write_text("{}\n")
    assert set_aside(run, tokenizer_too=True) is not None


def test_eval_only_judges_again(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole_run, folder)
    (folder / "scores.json").unlink()
    code, out, err = tiny.finish(folder, tiny_data, "--eval-only")  # as many threads as the run
    assert code == 0 and "memory_baseline" in out, err
    assert read_json(folder / "scores.json") == read_json(whole_run / "scores.json")


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        (
            "finetune_nuscenes",
            ("sessions of nuScenes", "--dataset nuscenes --input", "test_local"),
        ),
        (
            "finetune_uavscenes",
            (
                "UAVScenes",
                "vlwm download --uavscenes && vlwm prepare --dataset uavscenes",
                "--input data/uavscenes",
                "test_local",
            ),
        ),
        ("finetune_tokyo", ("no sessions", "vlwm download && vlwm prepare --input", "--data DIR")),
    ],
)
def test_missing_data_say_what_to_type(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        train(load_config(preset), TrainOptions(tmp_path / "run"))
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "run").exists()


def test_missing_weights_name_both_remedies(tiny: Any, tmp_path: Path, tiny_data: Path) -> None:
    config = load_config(
        "test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}", "load_from='no.pth'")
    )
    with pytest.raises(DataError, match=r"no\.pth.*vlwm download --models.*--from-scratch"):
        train(config, TrainOptions(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_moves_no_run_aside(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    config = load_config("test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}"))
    for folder in (tmp_path / "new", shutil.copytree(whole_run, tmp_path / "old")):
        with pytest.raises(MachineError, match="GPU 17 not found"):
            train(config, TrainOptions(folder, gpu_id=17, new_run=True))
    assert not (tmp_path / "new").exists()
    kept, before = (sorted(p.name for p in f.iterdir()) for f in (tmp_path / "old", whole_run))
    assert kept == before


def test_the_world_stage_alone_needs_a_tokenizer(
    tiny: Any, tmp_path: Path, tiny_data: Path
) -> None:
    config = load_config("test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}"))
    with pytest.raises(DataError, match=r"no trained tokenizer.*--stage tokenizer"):
        train(config, TrainOptions(tmp_path / "run", stage="world"))


def test_a_tokenizer_without_a_step_is_not_frozen(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    """The checkpoint written before the first step proves the disk, not the training."""
    content = load_checkpoint(whole_run / "tokenizer" / "last.pth")
    folder = RunFolder(tmp_path / "run").tokenizer
    folder.create()
    save_checkpoint(folder.last, {**content, "step": 0, "epoch": 0})
    config = load_config("test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}"))
    with pytest.raises(DataError, match=r"no trained tokenizer.*--stage tokenizer"):
        train(config, TrainOptions(tmp_path / "run", stage="world"))


def test_weights_that_cover_the_tokenizer_leave_stage_1_out(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    weights = str(whole_run / "tokenizer" / "best.pth")
    overrides = (
        *tiny.overrides,
        f"data_root={str(tiny_data)!r}",
        f"load_from={weights!r}",
        "max_epochs=1",
    )
    train(load_config("test_local", overrides), TrainOptions(tmp_path / "run"))
    assert not list((tmp_path / "run" / "tokenizer").glob("*.pth"))
    given = load_checkpoint(weights)["model"]
    kept = load_checkpoint(tmp_path / "run" / "best.pth")["model"]
    assert all(torch.equal(kept[f"vae.{name}"], value) for name, value in given.items())


def test_a_folder_that_cannot_be_written_ends_the_run_at_once(tiny: Any, tiny_data: Path) -> None:
    code, _, err = tiny.finish(Path("/sys/vlwm_run"), tiny_data)
    assert code == 3 and "/sys/vlwm_run" in err and "step 1" not in err


def test_the_log_says_what_was_guessed_about_the_data(
    tiny: Any, tiny_data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train_data.open_splits

    def dealt(*words: Any) -> Splits:
        return replace(plain(*words), note="sessions are dealt whole")

    monkeypatch.setattr(train_data, "open_splits", dealt)
    opened = train_data.open_data(
        load_config("test_local", (*tiny.overrides, f"data_root={str(tiny_data)!r}")), lambda: None
    )
    assert "data: sessions are dealt whole" in caplog.text
    caplog.clear()
    opened.store.notes.extend(f"drone_{i}: 0.1 s between frames" for i in range(9))
    train_data._tell(opened.store, opened.splits)
    assert caplog.text.count("s between frames") == 4 and "5 more notes" in caplog.text
