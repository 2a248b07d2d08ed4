"""The dashboard's picture at every size, in every state, with made-up snapshots."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests import fake_run
from vlwm.core.hardware.gpu import Gpu, GpuReport
from vlwm.core.hardware.host import Host
from vlwm.core.hardware.mounts import DiskSpace
from vlwm.core.monitoring.diagnosis import next_step
from vlwm.core.monitoring.export import to_dict, to_line
from vlwm.core.monitoring.formatting import ASCII, UNICODE, Glyphs
from vlwm.core.monitoring.layout import frame
from vlwm.core.monitoring.panels import Room
from vlwm.core.monitoring.plots import curve
from vlwm.core.monitoring.reader import RunReader
from vlwm.core.monitoring.screens.pages import LABELS, links_page
from vlwm.core.monitoring.snapshot import MachineSample, Series, Snapshot
from vlwm.core.run_folder import RunFolder

G = 1 << 30
CARD = Gpu(0, "NVIDIA A100-SXM4-80GB", "GPU-1", 80 * G, 18 * G, 0.97, 64.0, 312.0, 400.0, (8, 0))
HOST = Host(64, 46.0, 512 * G, 128 * G, 32 * G, 16 * G, None, True)
SIGN = {"name": "starving", "level": "warn", "message": "41% of the time goes into waiting",
        "remedy": "raise --workers, or move the data to a faster disk", "step": 3}  # fmt: skip


def sample(*gpus: Gpu) -> MachineSample:
    report = GpuReport(gpus, "570.1", (12, 8)) if gpus else GpuReport(reason="no driver is there")
    return MachineSample("box", report, HOST, 0.45, DiskSpace(252 * 10**9, 78 * 10**9))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fake_run.write_run(tmp_path_factory.mktemp("runs") / "東京", steps=400, host="box")


def snapshot_of(folder: RunFolder, machine: MachineSample, **changes: Any) -> Snapshot:
    folder.write_status(fake_run.status(folder, **{"host": "box", **changes}))
    return RunReader(folder, exists=lambda pid: True, host_name="box").read(machine)


def draw(
    snapshot: Snapshot, width: int, height: int, glyphs: Glyphs = UNICODE, **console: Any
) -> list[str]:
    out = Console(width=width, height=height, file=io.StringIO(), **console)
    out.print(frame(snapshot, width, height, glyphs))
    return out.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(140, 40), (80, 24), (110, 32), (60, 16), (40, 10),
                                               (200, 60), (100, 30), (20, 4)])  # fmt: skip
@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_it_fits_every_terminal(
    run: RunFolder, width: int, height: int, gpus: int, glyphs: Glyphs
) -> None:
    snapshot = snapshot_of(run, sample(*(replace(CARD, index=i) for i in range(gpus))))
    lines = draw(snapshot, width, height, glyphs)
    assert len(lines) <= height and max(cell_len(line) for line in lines) <= width
    if glyphs.ascii_only:
        assert "".join(lines).isascii()


@pytest.mark.parametrize(("width", "height"), [(140, 40), (80, 24)])
def test_it_shows_what_an_operator_asks(run: RunFolder, width: int, height: int) -> None:
    text = "\n".join(draw(snapshot_of(run, sample(CARD), health=[SIGN]), width, height))
    for word in (
        "running", "heartbeat", "world model", "training", "3 h 12 min left", "12 of 50",
        "1,204 of 5,000", "windows/s", "waits for data 1.2%", "learning rate 1.0e-4", "loss",
        "focal", "dice", "mean",
        "tokens", "motion", "prediction", "target", "IoU", "baseline 0.380", "occupied from",
        "A100-SXM4-80GB", "97%", "64°C", "312/400 W", "62.0/80.0 GiB", "of 46", "32.0/128 GiB",
        "78 GB free", "last.pth", "starving", "raise --workers, or move the data to a faster disk",
        "? help", "q quit",
    ):  # fmt: skip
        assert word in text, word


@pytest.mark.parametrize(("width", "height"), [(140, 40), (80, 24), (60, 16)])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "done", "phase": "done", "next": "vlwm eval x"}, ("done", "next: vlwm eval x")),
        ({"state": "failed", "exit_code": 3}, ("failed, exit 3", "train_*.log")),
        ({"state": "stopped", "exit_code": 75, "next": None}, ("stopped", "--resume")),
        ({"heartbeat": time.time() - 400}, ("stalled", "no heartbeat for")),
        ({"stage": "tokenizer", "phase": "validate"}, ("tokenizer", "stage 1 of 2", "validating")),
        ({"stage": None, "phase": "prepare", "step": 0, "steps": 0}, ("preparing data",)),
        ({"phase": "save"}, ("saving",)),
        ({"phase": "fusion", "epochs": 0, "eta_s": None}, ("frame fusion", "stage 2 of 2")),
    ],
)
def test_states(
    run: RunFolder, changes: dict[str, Any], words: tuple[str, ...], width: int, height: int
) -> None:
    text = "\n".join(draw(snapshot_of(run, sample(), **changes), width, height))
    for word in words:
        assert word in text, word


@pytest.mark.parametrize(
    ("done", "state", "epoch"),
    [(0, "running", 1), (2, "running", 3), (2, "stopped", 3), (3, "stopped", 4), (4, "done", 4)],
)
def test_an_epoch_has_one_number_everywhere(
    run: RunFolder, done: int, state: str, epoch: int
) -> None:
    """That of the log's lines: in the picture, the plain line and as JSON, also after a stop."""
    snapshot = snapshot_of(run, sample(), epoch=done, epochs=4, state=state)
    assert f"epoch {epoch} of 4" in "\n".join(draw(snapshot, 120, 40))
    assert f"epoch {epoch}/4" in to_line(snapshot)
    values = to_dict(snapshot)
    assert (values["running_epoch"], values["epoch"]) == (epoch, done)


def test_a_killed_run_says_how_to_go_on(run: RunFolder) -> None:
    folder_status = fake_run.status(run, heartbeat=time.time() - 60, host="box", pid=4321,
                                    next="vlwm train --resume")  # fmt: skip
    run.write_status(folder_status)
    dead = RunReader(run, exists=lambda pid: False, host_name="box").read(sample())
    text = "\n".join(draw(dead, 80, 24))
    assert "process gone" in text and "process 4321 died" in text
    assert "next: vlwm train --resume" in text and text.count("--resume") == 1


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_a_command_can_be_copied_whole_at_any_width(
    run: RunFolder, width: int, glyphs: Glyphs
) -> None:
    command = (
        "cd '/data/my runs' && vlwm train --work-dir /mnt/volume/a-long-folder-name/of-some-run "
        "--data '/mnt/another volume/with a long name, sessions' --resume"
    )
    snapshot = snapshot_of(run, sample(), state="stopped", next=command, cwd=os.getcwd())
    lines = [text.rstrip() for text in draw(snapshot, width, 24, glyphs)]
    start = next(i for i, text in enumerate(lines) if text.startswith("next: "))
    typed = "\n".join(lines[start:])[6:].split("? help")[0].replace("\\\n", "")
    assert shlex.split(typed) == shlex.split(command)


def test_the_end_of_the_run_and_a_warning_come_before_the_rest(run: RunFolder) -> None:
    plan = [{"name": n, "label": f"a long name of {n}", "state": s, "share": 0.2, "seconds": 99}
            for n, s in (("a", "done"), ("b", "done"), ("c", "now"), ("d", "todo"))]  # fmt: skip
    snapshot = snapshot_of(run, sample(), plan=plan, eta_run_s=7260.0, health=[SIGN])
    for width, height in ((40, 12), (60, 16), (80, 24), (120, 40)):
        text = " ".join("".join(draw(snapshot, width, height)).split())
        assert "end of the run in 2 h 01 min" in text, width
        assert "starving 41% of the time" in text, width


def test_links_are_whole_or_a_key_away(run: RunFolder) -> None:
    url = "https://wandb.ai/somebody/occworld-tokyo/runs/3x8k2m1p"
    links = {
        "W&B": url,
        "TensorBoard": "http://localhost:6006",
        "TensorBoard: type on this machine": "tensorboard --logdir '/mnt/a run' --port 6006",
    }
    snapshot = snapshot_of(run, sample(), links=links)
    text = "\n".join(draw(snapshot, 120, 40))
    assert url in text and "http://localhost:6006" in text and "w all links" in text
    page = Console(width=40, height=20, file=io.StringIO())
    page.print(links_page(snapshot, Room(40, 20, UNICODE)))
    shown = "".join(page.file.getvalue().split())
    for value in links.values():
        assert "".join(value.split()) in shown


def test_what_to_type_next_works_in_any_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was started in another folder, by paths that are relative to it."""
    there, here = tmp_path / "the box", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    told = f"cd '{there}' && vlwm train --work-dir x --resume"
    for text in ("vlwm train --work-dir x --resume", told):
        gone = snapshot_of(run, sample(), state="stopped", next=text, cwd=str(there))
        monkeypatch.chdir(here)
        assert next_step(gone) == told
        monkeypatch.chdir(there)
        assert next_step(gone) == "vlwm train --work-dir x --resume"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_an_ended_run_shows_its_test_scores_under_whole_names(run: RunFolder, width: int) -> None:
    name = "mean_constant_twist"
    sheet = {
        "horizons_s": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
        "baseline": {"predicted": name},
        "scores": {"model": {"iou": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4321]},
                   name: {"iou": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4123]}},
    }  # fmt: skip
    run.scores_json.write_text(json.dumps(sheet))
    text = "\n".join(draw(snapshot_of(run, sample(), state="done", phase="done"), width, 40))
    rows = [line for line in text.splitlines() if "model  " in line or name in line]
    assert "test IoU" in text and len(rows) == 2, text
    assert "0.432" in rows[0] and f"{name} " in rows[1] and "0.412" in rows[1]


@pytest.mark.parametrize("stage", ["tokenizer", "world"])
def test_labels_are_words_of_an_operator(run: RunFolder, stage: str) -> None:
    """What the picture names, the help explains; what only an author understands is gone."""
    text = "\n".join(draw(snapshot_of(run, sample(CARD), stage=stage), 200, 60))
    for word in (
        r"pose -",
        r"loader \d",
        r"with the plan",
        r"threshold \d",
        r"max \d",
        r"min \d.*e-",
    ):
        assert re.search(rf"\b{word}", text) is None, word
    explained = " ".join(label for label, _ in LABELS)
    for label in ("prediction", "waits for data", "tokens", "motion", "codebook", "occupied from",
                  "round trip IoU", "IoU (true motion given)", "perplexity", "gradient norm",
                  "highest prediction", "predicted occupied", "peak memory"):  # fmt: skip
        assert label in explained or label not in text, label


def test_tokenizer_shows_its_codebook(run: RunFolder) -> None:
    text = "\n".join(draw(snapshot_of(run, sample(), stage="tokenizer"), 140, 40))
    for word in (
        "round trip IoU",
        "codes used 470 of 512",
        "perplexity 391",
        "frames/s",
        "codebook",
    ):
        assert word in text, word


def test_labels_of_a_narrow_range_differ() -> None:
    room = Room(40, 8, UNICODE)
    rows = curve([Series((0, 100), (0.7801, 0.7832), 2)], room)
    labels = [row.plain.split()[0] for row in rows[:-1] if row.plain[:6].strip()]
    assert len(labels) == len(set(labels)) == 3 and labels[0].startswith("0.78")
    assert "second value" in curve([Series((0,), (1.0,), 1)], room)[0].plain


def test_before_the_first_number(tmp_path: Path) -> None:
    empty = RunReader(RunFolder(tmp_path), host_name="box").read()
    for width, height in ((140, 40), (80, 24), (40, 10)):
        text = "\n".join(draw(empty, width, height))
        assert "the run has not begun" in text and "waiting" in text


def test_another_machines_run_says_so(run: RunFolder) -> None:
    snapshot = snapshot_of(run, sample(CARD), host="elsewhere")
    text = "\n".join(draw(snapshot, 140, 40))
    assert "on elsewhere" in text and "machine (not the run's)" in text


def test_unknown_gpu_values_are_left_out(run: RunFolder) -> None:
    text = "\n".join(draw(snapshot_of(run, sample(Gpu(0, "NVIDIA GB10"))), 140, 40))
    assert "GB10" in text and "None" not in text and "nan" not in text


def test_a_file_cannot_draw_on_the_screen(run: RunFolder) -> None:
    nasty = "\x1b[2J[bold red]x[/]\x07"
    changes = {"config": nasty, "device": nasty, "phase": nasty, "next": nasty,
               "health": [dict.fromkeys(("name", "message", "remedy"), nasty)]}  # fmt: skip
    text = "\n".join(draw(snapshot_of(run, sample(CARD), **changes), 140, 40))
    assert "\x1b" not in text and "[bold red]x[/]" in text


def test_no_color_is_respected(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = snapshot_of(run, sample(CARD), health=[SIGN])
    coloured = "\n".join(draw(snapshot, 80, 24, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = "\n".join(draw(snapshot, 80, 24, force_terminal=True))
    assert "\x1b[36m" in coloured
    assert not any(f"\x1b[{code}" in plain for code in ("3", "4", "9", "1;3", "38"))


def test_json_is_plain_and_whole(run: RunFolder) -> None:
    fake_run.append(run, {"kind": "train", "stage": "world", "step": 401, "train/loss": 1e400})
    found = to_dict(snapshot_of(run, sample(CARD), health=[SIGN]))
    assert found["metrics"]["train/loss"] is None and found["validation"]["val/iou"] > 0
    assert found["machine"]["gpus"][0]["memory_free_bytes"] == 18 * G
    assert found["health"][0]["name"] == "starving" and found["state"] == "running"
    assert {f["name"] for f in found["checkpoints"]} >= {"last.pth", "tokenizer/best.pth"}


def test_lines_for_a_pipe(run: RunFolder) -> None:
    text = to_line(snapshot_of(run, sample(), health=[SIGN]))
    assert "\n" not in text
    for word in ("running", "world model training", "step 1204/5000", "ETA 3 h", "starving"):
        assert word in text, word
