"""Whole commands on damaged input: each ends soon, whole, and with a result or one sentence.

`prepare`, `train`, `eval` and `monitor` run as processes of their own, with limits of memory and
time, on damaged copies of cities, configs, prepared data, run folders and options. The suite runs
two of `monitor`; `-m endurance` runs a hundred of each command, `--seeds FROM:TO` a part of them.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import fake_run
from tests.core.city import hostile
from tests.core.city.gml_text import LATITUDE, LONGITUDE, member, write_members
from tests.core.training.conftest import TINY
from tests.core.training.forge import environment
from tests.core.training.test_pages import houses
from vlwm.core.config.load import load_config
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.files import read_json
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.model.checkpoint import load_checkpoint

SECONDS = 60
"""of processor time that a command may take"""
WAIT_S = 300
"""and of the clock, on a machine that is busy"""
MEMORY_BYTES = 8 << 30
CODES = (0, 1, 2, 3, 4, 75, 130)
"""what a command may end with (docs/commands.md)"""
SETS = [word for pair in TINY for word in ("--set", pair)]
ODD_NUMBERS = ("0", "-1", "1e999", "nan", "9" * 30, "²", "１", "", "x", "0x10", "1e9", "True")
ODD_WORDS = ("", "\x1b[2J", "a" * 300, "../..", "/proc/self/mem", "/dev/null", "~", "-", "x,y",
             "²", "\udcff", "s3://", "file://", "http://[", "*", "a\nb")  # fmt: skip
ODD_SETS = ("optimizer.lr=nan", "optimizer.lr=1e30", "max_epochs=9999999999", "voxel_size=[0,0,0]",
            "voxel_size=[1e-9,1e-9,1e-9]", "point_cloud_range=[0,0,0,0,0,0]", "model.channels=()",
            "point_cloud_range=[-1e9,-1e9,-1e9,1e9,1e9,1e9]", "model.channels=(8,8,10**9)",
            "history_frames=0", "history_frames=100000", "future_frames=-1", "model.num_heads=3",
            "tokenizer.codebook_size=10**12", "data.samples_per_gpu=10**9", "x.y=1", "_base_=x",
            "prepare.frames=10**12", "prepare.frames=1", "prepare.sessions=10**9", "model=5",
            "prepare.procedural_size_m=1e12", "data.workers_per_gpu=10**6", "seed=-1", "seed=1e9",
            "evaluation.max_windows=-5", "lr_config.warmup_iters=10**9", "frame_dt_s=0",
            "log_config.interval=0", "data_root=5", "tokenizer.embed_dim=0")  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        words: what was typed.
        code: exit code; negative: the signal; None: it was still running after `WAIT_S`.
    """

    words: list[str]
    code: int | None
    out: str
    err: str


def limit_memory() -> None:
    """Limit the address space and the processor time of the child."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(words: list[str], folder: Path) -> Ended:
    """Run one command in `folder`, within the limits; nothing of it is left running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vlwm", *words], cwd=folder, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**environment(), "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=limit_memory, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return Ended(words, None, out, err)
    return Ended(words, process.returncode, out, err)


def faults(ended: Ended, folder: Path) -> list[str]:
    """Return what is wrong with an end, whatever was damaged."""
    text = ended.out + ended.err
    found = []
    if ended.code is None:
        found.append(f"still running after {WAIT_S} s")
    elif ended.code not in CODES:
        found.append(f"exit code {ended.code}")
    found += [word for word in ("Traceback", "this is a bug", "vlwm-error") if word in text]
    if set(text) & {chr(c) for c in (*range(9), *range(11, 32), 127, *range(128, 160))} - {"\r"}:
        found.append("control characters")
    sentences = [line for line in ended.err.splitlines() if line.startswith("vlwm: ")]
    if "disk error" in text:
        found.append("a fault of the disk that is none")
    if ended.code and len(sentences) != 1:
        found.append(f"{len(sentences)} sentences")
    left = [path for path in folder.rglob("*") if path.suffix in (".tmp", ".part")]
    if left and ended.code is not None:
        found.append(f"left behind: {left}")
    return found


def damage(path: Path, rng: random.Random) -> str:
    """Damage one file; return how."""
    kind = rng.choice(["bytes"] * 4 + ["json"] * 4 + ["cut", "empty", "folder", "gone", "picture",
                                                       "loop", "huge", "unread"])  # fmt: skip
    if kind == "json" and path.suffix in (".json", ".jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines() or ["{}"]
        if path.suffix == ".json":
            lines = ["\n".join(lines)]
        at = rng.randrange(len(lines))
        value = json.loads(lines[at])
        if isinstance(value, dict) and rng.random() < 0.6:  # as another program would write it
            value.pop("checksum", None)
            value.pop("checksums", None)
        lines[at] = json.dumps(hostile.changed_json(value, rng))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return kind
    data = path.read_bytes()
    if kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data) + 1)])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + data[:1000])
    elif kind == "huge":
        path.write_bytes(data + b"9" * (1 << 22))
    elif kind in ("folder", "gone", "loop"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path.name)
    else:
        kind = "bytes"
        path.write_bytes(hostile.changed(data, rng))
    return kind


def damage_some(folder: Path, rng: random.Random) -> str:
    """Damage one or two files of a folder, or swap two; return what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 2])):
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".html")
        small = [p for p in files if p.suffix in (".json", ".jsonl", ".pth", ".shard", "")]
        path = rng.choice(small if rng.random() < 0.7 and small else files)
        if rng.random() < 0.1:
            other = rng.choice([p for p in files if p.suffix == path.suffix])
            data = path.read_bytes()
            path.write_bytes(other.read_bytes())
            other.write_bytes(data)
            done.append(f"{path.relative_to(folder)} swapped with {other.relative_to(folder)}")
        else:
            done.append(f"{path.relative_to(folder)}: {damage(path, rng)}")
    return "; ".join(done)


def odd_words(options: dict[str, tuple[str, ...]], rng: random.Random) -> list[str]:
    """Return one or two options with values that nobody means."""
    words = []
    for name in rng.sample(sorted(options), rng.choice([1, 1, 2])):
        words += [name, rng.choice(options[name])]
    return words


def damaged_config(folder: Path, rng: random.Random) -> str:
    """Write a config file with changed bytes; return its name."""
    lines = [f"{pair.replace('=', ' = ', 1)}" for pair in TINY if "." not in pair.split("=")[0]]
    text = "_base_ = 'test_local.py'\n" + "\n".join(lines) + "\n"
    (folder / "c.py").write_bytes(hostile.changed(text.encode(), rng))
    return "c.py"


def write_town(folder: Path, kind: str, rng: random.Random) -> None:
    """Write a damaged city of a kind into `folder`: of 64 houses, or of a tile."""
    if kind in ("tile", "tileset", "gltf"):
        hostile.READERS[kind](folder, rng)
        return
    path = folder / "town.obj"
    path.write_text(houses(8, 60))
    if kind == "gml":
        path.unlink()
        path = write_members(folder / "53394611_bldg_6697_op.gml", *_gml_houses(8))
    elif kind == "zip":
        with zipfile.ZipFile(folder / "town.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "udx/town.obj")
        path.unlink()
        path = folder / "town.zip"
    damage(path, rng)


def _gml_houses(count: int) -> Iterator[str]:
    for number in range(count * count):
        south, west = (60e-5 * place for place in divmod(number, count))
        low, high = (LATITUDE + south, LONGITUDE + west), (
            LATITUDE + south + 24e-5, LONGITUDE + west + 24e-5,
        )  # fmt: skip
        corners = [low, (low[0], high[1]), high, (high[0], low[1]), low]
        text = " ".join(f"{a} {b} {9 + number * 7 % 40}" for a, b in corners)
        ring = f"<gml:LinearRing><gml:posList>{text}</gml:posList></gml:LinearRing>"
        surface = f"<gml:Polygon><gml:exterior>{ring}</gml:exterior></gml:Polygon>"
        yield member(f"<bldg:lod1Solid>{surface}</bldg:lod1Solid>", f"b{number}")


@dataclass(frozen=True)
class Whole:
    """What the commands are given before it is damaged.

    Attributes:
        data: prepared data of a procedural city.
        run: a run on them that ended well.
        town: prepared data of the town that `write_town` writes; only `prepare` needs it.
    """

    data: Path
    run: Path
    town: Path = Path()


PREPARE_OPTIONS = {
    "--frames": ODD_NUMBERS, "--sessions": ODD_NUMBERS, "--seed": ODD_NUMBERS,
    "--workers": ODD_NUMBERS, "--scale": ODD_NUMBERS, "--area": (*ODD_WORDS, "35.7,139.7,1e9"),
    "--agents": ODD_WORDS, "--pattern": ODD_WORDS, "--up": ODD_WORDS, "--fill": ODD_WORDS,
    "--observe": ODD_WORDS, "--pose-noise": ODD_WORDS, "--set": ODD_SETS, "--output": ODD_WORDS,
    "--preview-file": ODD_WORDS, "--config": ODD_WORDS,
}  # fmt: skip
TRAIN_OPTIONS = {
    "--epochs": ODD_NUMBERS, "--batch-size": ODD_NUMBERS, "--lr": ODD_NUMBERS,
    "--seed": ODD_NUMBERS, "--workers": ODD_NUMBERS, "--keep": ODD_NUMBERS, "--price": ODD_NUMBERS,
    "--gpu-ids": ODD_NUMBERS, "--stage": ODD_WORDS, "--data": ODD_WORDS, "--work-dir": ODD_WORDS,
    "--set": ODD_SETS, "--resume-from": ODD_WORDS, "--packed-dir": ODD_WORDS, "--config": ODD_WORDS,
    "--backup": ODD_WORDS,
}  # fmt: skip
EVAL_OPTIONS = {
    "--split": ODD_WORDS, "--data": ODD_WORDS, "--max-windows": ODD_NUMBERS, "--output": ODD_WORDS,
    "--picture": ODD_WORDS, "--video": ODD_WORDS, "--report": ODD_WORDS, "--engine": ODD_WORDS,
    "--batch-size": ODD_NUMBERS, "--packed-dir": ODD_WORDS, "--workers": ODD_NUMBERS,
}  # fmt: skip


def prepare(folder: Path, whole: Whole, rng: random.Random) -> tuple[list[str], str]:
    """A damaged city, config or data folder, or odd options."""
    (folder / "city").mkdir()
    words = ["prepare", "--input", "city", "--output", "data", "--workers", rng.choice("12")]
    config, done = "test_local", ""
    what = rng.choice(["city"] * 5 + ["data"] * 3 + ["config", "options", "options"])
    if what == "city":
        done = rng.choice(["obj", "obj", "gml", "gml", "zip", "tile", "tileset", "gltf"])
        write_town(folder / "city", done, rng)
    else:
        (folder / "city/town.obj").write_text(houses(8, 60))
    if what == "data":
        shutil.copytree(whole.town, folder / "data")
        done = damage_some(folder / "data", rng)
    elif what == "config":
        config = damaged_config(folder, rng)
    words += ["--config", config, *SETS]
    if what == "options":
        words += odd_words(PREPARE_OPTIONS, rng)
    return words, f"{what} {done}"


def train(folder: Path, whole: Whole, rng: random.Random) -> tuple[list[str], str]:
    """Damaged data, a damaged run to resume, a damaged config, or odd options."""
    config, done = "test_local", ""
    what = rng.choice(["data"] * 3 + ["run"] * 4 + ["from"] + ["config", "options", "options"])
    shutil.copytree(whole.data, folder / "data")
    words = ["train", "--work-dir", "run", "--data", "data"]
    if what == "data":
        done = damage_some(folder / "data", rng)
    elif what == "run":
        shutil.copytree(whole.run, folder / "run")
        for name in ("scores.json", "last.pth", "epoch_2.pth")[: rng.randrange(4)]:
            (folder / "run" / name).unlink()
        done = damage_some(folder / "run", rng)
        words += ["--resume"] if rng.random() < 0.5 else []
    elif what == "from":
        shutil.copy(whole.run / "epoch_1.pth", folder / "x.pth")
        done = damage(folder / "x.pth", rng)
        words += ["--resume-from", "x.pth"]
    elif what == "config":
        config = damaged_config(folder, rng)
    words += ["--config", config, *SETS]
    words += odd_words(TRAIN_OPTIONS, rng) if what == "options" else []
    return words, f"{what} {done}"


def evaluate(folder: Path, whole: Whole, rng: random.Random) -> tuple[list[str], str]:
    """A damaged run, checkpoint or data folder, or odd options."""
    what, done = rng.choice(["data"] * 3 + ["run"] * 4 + ["file", "options", "compare"]), ""
    shutil.copytree(whole.data, folder / "data")
    shutil.copytree(whole.run, folder / "run")
    (folder / "run/scores.json").unlink()
    words = ["eval", "run", "--data", "data"]
    if what == "data":
        done = damage_some(folder / "data", rng)
    elif what == "run":
        done = damage_some(folder / "run", rng)
    elif what == "file":
        shutil.move(folder / "run/best.pth", folder / "x.pth")
        done = damage(folder / "x.pth", rng)
        words = ["eval", "x.pth", "--data", "data", "--output", "out"]
    elif what == "compare":
        shutil.copytree(folder / "run", folder / "other")
        done = damage_some(folder / "other", rng)
        words = ["eval", "--compare", "run", "other", "--data", "data", "--output", "out"]
    else:
        words += odd_words(EVAL_OPTIONS, rng)
    return words, f"{what} {done}"


def monitor(folder: Path, whole: Whole, rng: random.Random) -> tuple[list[str], str]:
    """A damaged run folder, of training or long finished."""
    if rng.random() < 0.5 or whole.run == Path():
        fake_run.write_run(folder / "run", steps=60)
    else:
        shutil.copytree(whole.run, folder / "run")
    done = damage_some(folder / "run", rng)
    return ["monitor", "run", rng.choice(["--once", "--json"])], done


COMMANDS: dict[str, Callable[[Path, Whole, random.Random], tuple[list[str], str]]] = {
    "prepare": prepare, "train": train, "eval": evaluate, "monitor": monitor,
}  # fmt: skip


def unfinished(ended: Ended, folder: Path) -> list[str]:
    """Return what is missing of the result of a command that ended with 0."""
    words = ended.words
    target = {"prepare": "--output", "train": "--work-dir"}.get(words[0])
    last = max((i for i, w in enumerate(words) if w == target), default=None)
    place = folder / (words[last + 1] if last is not None else "run")
    if words[0] == "prepare":
        grid = load_config("test_local", TINY)
        store = PackedStore.open(
            place, VoxelGrid.from_range(grid.point_cloud_range, grid.voxel_size)
        )
        labels = Splits.read(place / "splits.json").labels(store)
        return [] if len(labels) == len(store) > 0 else ["frames without labels"]
    if words[0] == "train":
        load_checkpoint(place / ("tokenizer/best.pth" if "tokenizer" in words else "best.pth"))
        if "not evaluated: " in ended.err:  # no window of the test split is whole any more
            return []
    if words[0] == "monitor":
        return [] if ended.out.strip() else ["nothing was shown"]
    if "--output" in words:
        place = folder / words[words.index("--output") + 1]
    names = ["scores.json"] if "tokenizer" not in words and "--compare" not in words else []
    for name in names:
        sheet = read_json(place / name)
        numbers = [v for m in sheet["scores"].values() for v in m["iou"]]
        if not numbers or not all(v is None or math.isfinite(v) for v in numbers):
            return ["scores that are no numbers"]
    return []


def assert_ends_well(name: str, seed: int, folder: Path, whole: Whole) -> Ended:
    """Damage an input, run the command, and say what is wrong with its end."""
    rng = random.Random(f"{name} {seed}")
    folder.mkdir()
    words, done = COMMANDS[name](folder, whole, rng)
    ended = run(words, folder)
    found = faults(ended, folder)
    if ended.code == 0 and not found:
        found = unfinished(ended, folder)
    shown = [word for word in words if word not in SETS]
    told = ended.err.strip().splitlines()[-1:] if ended.code else ["done"]
    print(f"{name} {seed}: {done}: {ended.code}: {told}", flush=True)
    assert not found, (name, seed, found, done, shown, ended.out[-2000:], ended.err[-4000:])
    return ended


def test_the_dashboard_ends_well_on_a_damaged_run(tmp_path: Path) -> None:
    for seed in range(2):
        assert_ends_well("monitor", seed, tmp_path / str(seed), Whole(Path(), Path()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, whole_run: Path) -> Whole:
    """Prepared data, a finished run and the prepared town."""
    folder = tmp_path_factory.mktemp("town")
    (folder / "city").mkdir()
    (folder / "city/town.obj").write_text(houses(8, 60))
    words = ["prepare", "--input", "city", "--output", "data", "--workers", "1"]
    ended = run([*words, "--config", "test_local", *SETS], folder)
    assert ended.code == 0, ended.err
    return Whole(tiny_data, whole_run, folder / "data")


@pytest.mark.endurance
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_hundred_damaged_inputs(
    name: str, tmp_path: Path, whole: Whole, seeds_of: Callable[[int], range]
) -> None:
    wrong = []
    for seed in seeds_of(100):
        try:
            assert_ends_well(name, seed, tmp_path / str(seed), whole)
        except AssertionError as error:
            wrong.append(re.sub(r"\s+", " ", str(error)))
        shutil.rmtree(tmp_path / str(seed), ignore_errors=True)
    assert not wrong, "\n".join(wrong)
