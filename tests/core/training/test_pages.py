"""The command blocks of README and docs, followed: every `vlwm` line in them and in the help texts
runs as typed, on a desk that holds what the pages have made by then. What would fetch, mend a
machine or take hours is run with `--dry-run`, a dashboard with `--once`."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_examples import ROOT, shown
from vlwm.cli import app
from vlwm.core.errors import VlwmError

MORE = {
    "setup": "--offline --dry-run", "download": "--dry-run", "prepare": "--dry-run",
    "train": "--dry-run", "eval": "", "export": "", "monitor": "--once",
}  # fmt: skip
"""what is added to a command"""
APART = {
    "vlwm eval --baselines-only --config tokyo_small --data data/tokyo_gazebo",
}
"""needs data of that config's grid; tests/commands/test_eval.py runs it on such"""
ELSEWHERE = (
    "ssh", "scp", "rsync", "git clone", "python3 -m venv", "pip install", "screen", "tensorboard",
    "cd", "mkdir", "pytest", ".", "python benchmarks/", "python docs/generate.py", "wandb",
    "mkdocs", "REPO=", "export LANG",
)  # fmt: skip
"""commands of a page that are not ours, or that need another machine"""


REFUSED = {
    "vlwm download --plateau --ward": "cannot reach",
    "vlwm prepare --input tiles/m": "no such",
    "vlwm prepare --check data/mine": "no such data folder",
    "vlwm prepare --points": ("no such", "needs the poses"),
    "vlwm prepare --dataset": "no such",
    "vlwm train --config finetune_6dof --data data/mine": "no sessions",
}
"""lines that need a flight of the reader's own or the network, and what they say here"""


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
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, whole_run: Path) -> Path:
    """City models, prepared data, weights and finished runs, where the pages have them."""
    root = tmp_path_factory.mktemp("desk")
    tiles = root / "data/plateau/meshes/obj"
    tiles.mkdir(parents=True)
    (tiles / "533946_bldg.obj").write_text(houses(15, apart_m=60.0))
    for name in ("TILES", "tiles"):
        (root / name).symlink_to(tiles)
    for name in ("tokyo_gazebo", "matsumoto"):
        (root / "data" / name).symlink_to(tiny_data)
    for name in ("checkpoints", "test_out"):
        shutil.copytree(whole_run, root / name)
    shutil.copyfile(whole_run / "best.pth", root / "best.pth")
    (root / "pretrained/occworld").mkdir(parents=True)
    (root / "pretrained/occworld/latest.pth").touch()
    return root


@pytest.mark.parametrize("line", [line for line in shown() if line not in APART])
def test_a_line_of_the_pages_runs(desk: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("HOME", str(desk))
    monkeypatch.setenv("VLWM_PLATEAU_API", "http://127.0.0.1:9/api")  # then the built-in list
    before = files(desk)
    words = [re.sub("^~", str(desk), word) for word in shlex.split(line)[1:]]
    refused = next((text for start, text in REFUSED.items() if line.startswith(start)), None)
    if words[0] == "train" and "--resume" not in words:  # the runs here are of other configs
        words += ["--work-dir", str(desk / "new")]
    result = CliRunner().invoke(app, [*words, *added(words)])
    if refused is not None:
        assert isinstance(result.exception, VlwmError)
        wanted = (refused,) if isinstance(refused, str) else refused
        assert any(text in str(result.exception) for text in wanted)
        return
    if words[0] == "train" and result.exit_code:  # the data here are of a tiny grid
        assert "another grid" in str(result.exception) or result.exit_code == 3
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
