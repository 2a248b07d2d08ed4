"""The command blocks of README and docs, followed: every `vlwm` line in them and in the help texts
runs as typed, on a desk that holds what the pages have made by then. What would fetch, mend a
machine or take hours is run with `--dry-run`, a dashboard with `--once`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.core.data.recordings.formats import write_folder
from tests.core.data.recordings.readers import test_bags
from tests.core.data.recordings.sessions import CITY
from tests.docs.test_examples import ROOT, shown
from vlwm.cli import app
from vlwm.core.config.load import load_config
from vlwm.core.errors import VlwmError

MORE = {
    "setup": "--offline --dry-run", "download": "--dry-run", "prepare": "--dry-run",
    "train": "--dry-run", "eval": "", "export": "", "monitor": "--once",
}  # fmt: skip
"""what is added to a command"""
ELSEWHERE = (
    "ssh", "scp", "rsync", "git clone", "python3 -m venv", "pip install", "screen", "tensorboard",
    "cd", "mkdir", "pytest", ".", "python benchmarks/", "python docs/generate.py", "wandb",
    "mkdocs", "REPO=", "export LANG", "dask", "torchrun",
    "-m vlwm", "#",
)  # fmt: skip
"""commands of a page that are not ours, or that need another machine"""


REFUSED = {
    "vlwm download --plateau --ward": "cannot reach",
    "vlwm eval release": "no such run",
    "vlwm eval checkpoints --data s3://BUCKET": "no credentials for the store",
}
"""lines that need the network, a bucket, or a release that the next lines make (test_release.py
scores one), and what they say without it"""
SMALL = ("tokyo_small", "TILES", "vlwm eval --split test")
"""words of the README's block for a CPU, whose data are of that config's grid"""
OTHER = {"--stage world": "alone", "finetune_6dof": "fresh"}
"""words of a line, and the desk where a reader types it"""


def houses(count: int, apart_m: float) -> str:
    """A square of count × count houses of 24 m, as OBJ."""
    lines = ["# EPSG:6677"]
    faces = ("4 3 2 1", "5 6 7 8", "1 2 6 5", "2 3 7 6", "3 4 8 7", "4 1 5 8")
    for number in range(count * count):
        x, y = (apart_m * place for place in divmod(number, count))
        corners = [(x, y), (x + 24, y), (x + 24, y + 24), (x, y + 24)]
        height, first = 9 + number * 7 % 40, 8 * number
        lines += [f"v {a} {b} {z}" for z in (0, height) for a, b in corners]
        lines += ["f " + " ".join(str(int(n) + first) for n in face.split()) for face in faces]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny data of each preset's grid, and a flight, made by the pages' own commands."""
    root = tmp_path_factory.mktemp("prepared")
    tiles = root / "tiles"
    tiles.mkdir()
    (tiles / "533946_bldg.obj").write_text(houses(15, apart_m=60.0))
    for name in ("marunouchi", "matsumoto"):
        (root / "models").mkdir(exist_ok=True)
        (root / "models" / name).symlink_to(tiles)
    flight = write_flight(root / "flight")
    tiny = ["--frames", "10", "--sessions", "3", "--workers", "1"]
    for words in (
        ["--input", str(tiles), "--output", str(root / "full"), *tiny],
        ["--input", str(tiles), "--output", str(root / "small"), "--config", "tokyo_small", *tiny],
        ["--points", str(flight / "scans"), "--poses", str(flight / "slam.txt"), "--extrinsic",
         str(flight / "lidar_to_body.yaml"), "--output", str(root / "mine")],
    ):  # fmt: skip
        result = CliRunner().invoke(app, ["prepare", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return {path.name: path for path in root.iterdir()}


def write_flight(folder: Path) -> Path:
    """A flight as the pages name its files: a folder of scans, a ROS 1 bag, a folder of a bag."""
    write_folder(folder, CITY.recording)
    for old, new in (("points", "scans"), ("poses.txt", "slam.txt"),
                     ("extrinsic.yaml", "lidar_to_body.yaml")):  # fmt: skip
        (folder / old).rename(folder / new)
    test_bags.write_rosbags(folder / "flight.bag", "ROS1_NOETIC", "", "cloud", "odom")
    messages = test_bags.messages

    def renamed(*how: Any) -> Any:
        for topic, *rest in messages(*how):
            yield topic.replace("/points", "/livox/lidar"), *rest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_bags, "messages", renamed)
        test_bags.write_rosbags(folder / "flight", "ROS2_HUMBLE", "SQLITE3", "livox", "odom")
    return folder


@pytest.fixture(scope="module")
def desks(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_data: Path,
    whole_run: Path,
    prepared: dict[str, Path],
) -> dict[str, Path]:
    """City models, prepared data, weights and finished runs, where the pages have them.

    Desks by what was done on them: "full" (the guide's run), "small" (the README's run on a CPU),
    "alone" (stage 1 of the guide's run) and "fresh" (nothing yet).
    """
    found = {}
    for name, config in (("full", "finetune_tokyo"), ("small", "tokyo_small"),
                         ("alone", "finetune_tokyo"), ("fresh", "finetune_tokyo")):  # fmt: skip
        root = tmp_path_factory.mktemp(name)
        found[name] = root
        tiles = root / "data/plateau/meshes/obj"
        tiles.parent.mkdir(parents=True)
        for link, target in {
            tiles: prepared["tiles"], root / "TILES": prepared["tiles"],
            root / "tiles": prepared["models"],
            root / "data/matsumoto": tiny_data, root / "data/mine": prepared["mine"],
            root / "data/tokyo_gazebo": prepared["small" if name == "small" else "full"],
            **{root / file.name: file for file in prepared["flight"].iterdir()},
        }.items():  # fmt: skip
            link.symlink_to(target)
        for folder, preset, changes in (
            ("checkpoints", config, ["max_epochs=2"] if name == "small" else []),
            ("test_out", "test_local", ["max_epochs=2"]),
        ):
            shutil.copytree(whole_run, root / folder)
            stored = load_config(preset, changes).to_dict()
            (root / folder / "config.json").write_text(json.dumps(stored))
        shutil.copyfile(whole_run / "best.pth", root / "best.pth")
        (root / "pretrained/occworld").mkdir(parents=True)
        (root / "pretrained/occworld/latest.pth").touch()
    for path in (found["alone"] / "checkpoints").glob("*.pth"):
        path.unlink()
    shutil.rmtree(found["fresh"] / "checkpoints")
    return found


def _cases() -> list[Any]:
    """Return the lines; those that need an extra of CI, and all films but the first (a film takes
    long), are run by `pytest -m ci`."""
    lines = shown()
    films = [line for line in lines if "--video" in line]
    later = [*films[1:], *(line for line in lines if "s3://" in line)]
    return [pytest.param(x, marks=pytest.mark.ci if x in later else ()) for x in lines]


@pytest.mark.parametrize("line", _cases())
def test_a_line_of_the_pages_runs(
    desks: dict[str, Path], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "small" if any(word in line for word in SMALL) else "full"
    desk = desks[next((other for word, other in OTHER.items() if word in line), name)]
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HOME", str(desk))
    monkeypatch.setenv("VLWM_PLATEAU_API", "http://127.0.0.1:9/api")  # then the built-in list
    before = files(desk)
    words = [re.sub("^~", str(desk), word) for word in shlex.split(line)[1:]]
    result = CliRunner().invoke(app, [*words, *added(words)])
    refused = next((text for start, text in REFUSED.items() if line.startswith(start)), None)
    if refused is not None:
        assert isinstance(result.exception, VlwmError) and refused in str(result.exception)
        return
    machine = words[0] == "setup"  # this one may not be fit
    assert result.exit_code == 0 or (machine and result.exit_code == 3), result.exception
    assert result.stdout.strip()
    written = files(desk) - before
    assert not written or words[0] in ("eval", "download", "export"), written


def added(words: list[str]) -> list[str]:
    """What keeps a line from taking hours, where it does not stand in it already."""
    if words[0] == "download" and "--list" in words:
        return []
    return [word for word in MORE[words[0]].split() if word not in words]


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def test_every_other_command_of_a_page_is_not_ours() -> None:
    """So that no line escapes: what a block holds is a `vlwm` line or a command of ELSEWHERE."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    blocks = [block for t in texts for block in re.findall(r"```bash\n(.*?)```", t, re.S)]
    parts = [re.split(r" && | #.*", line) for b in blocks for line in b.splitlines()]
    commands = {part.strip() for found in parts for part in found if part.strip()}
    ours = {command for command in commands if command.startswith("vlwm ")}
    assert ours <= set(shown()) and len(ours) > 20
    strange = [c for c in commands - ours if not c.startswith(ELSEWHERE)]
    assert strange == []
