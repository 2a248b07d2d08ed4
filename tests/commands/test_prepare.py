"""`vlwm prepare`: one JSON object, goes on where it stopped, one sentence for each fault."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from vlwm.commands.prepare import prepare
from vlwm.commands.shared.prepare_output import config_of, train_command
from vlwm.core.config.load import load_config
from vlwm.core.data.generation import prepare as preparing
from vlwm.core.data.packed_store import PackedStore
from vlwm.core.errors import ConfigError, DataError, UsageError, VlwmError
from vlwm.core.geometry.grid import VoxelGrid

app = typer.Typer()
app.command()(prepare)

_CONFIG = load_config("test_local")
GRID = VoxelGrid.from_range(_CONFIG.point_cloud_range, _CONFIG.voxel_size)
SMALL = ("--config", "test_local", "--frames", 12, "--sessions", 3, "--workers", 1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def small(output: Path, *more: object) -> Result:
    return run(*SMALL, "--output", output, "--set", "prepare.procedural_size_m=400", *more)


def fault(result: Result, kind: type[VlwmError]) -> str:
    """The one sentence of an expected error."""
    assert isinstance(result.exception, kind), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_json_is_one_object_and_notes_go_elsewhere(tmp_path: Path) -> None:
    result = small(tmp_path, "--json")
    assert result.exit_code == 0, result.exception
    values = json.loads(result.stdout)
    assert values["sessions"] == 3 and values["frames"] == 36 == values["written"]
    assert values["splits"] == {"train": 12, "val": 12, "test": 12}
    assert 0.003 < values["occupied_share"] < 0.2 and 0.1 < values["ground_share"] < 1
    assert values["frames_per_s"] > 0 and values["procedural"] is True
    assert "not real" in values["attribution"] and "not real" in result.stderr
    again = json.loads(small(tmp_path, "--json").stdout)
    assert again["written"] == 0 and again["kept"] == 36


def test_a_table_for_people_names_the_next_command(tmp_path: Path) -> None:
    result = small(tmp_path)
    assert result.exit_code == 0, result.exception
    assert f"next: vlwm train --config test_local --data {tmp_path}" in result.stdout
    assert "train 12" in result.stdout


def test_the_next_command_is_whole_and_works_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = small(Path("my data"))
    assert result.exit_code == 0, result.exception
    line = next(x for x in result.stdout.splitlines() if x.startswith("next: "))
    assert shlex.split(line)[1:] == [
        "vlwm", "train", "--config", "test_local", "--data", str(tmp_path / "my data"),
        "--set", "prepare.procedural_size_m=400",
    ]  # fmt: skip
    assert config_of(tmp_path / "my data") == "test_local"
    assert config_of(tmp_path) == "finetune_tokyo"
    Path("mine.py").write_text('_base_ = "finetune_tokyo.py"\nload_from = "w.pth"\n')
    without = ["vlwm", "train", "--config", str(tmp_path / "mine.py"), "--data"]
    words = shlex.split(train_command("there", "mine.py"))
    assert words == [*without, str(tmp_path / "there"), "--from-scratch"]
    Path("w.pth").touch()
    words = shlex.split(train_command("s3://b/t", "mine.py"))
    assert words == ["cd", str(tmp_path), "&&", *without, "s3://b/t"]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = small(tmp_path / "out", "--dry-run", "--json")
    values = json.loads(result.stdout)
    assert values["splits"] == {"train": 12, "val": 12, "test": 12} and values["bytes"] > 0
    assert values["grid"] == [50, 50, 30]
    assert "Would make 3 sessions" in small(tmp_path / "out", "--dry-run").stdout
    assert not (tmp_path / "out").exists()


def test_without_npz_a_folder_holds_shards_of_the_same_content(tmp_path: Path) -> None:
    small(tmp_path / "npz")
    assert small(tmp_path / "shards", "--no-npz").exit_code == 0
    names = {p.name for p in (tmp_path / "shards").iterdir()}
    assert sum(n.endswith(".shard") for n in names) == 3 and "splits.json" in names
    assert not list((tmp_path / "shards").glob("*/occupancy"))
    stores = [PackedStore.open(tmp_path / n, GRID) for n in ("npz", "shards")]
    assert stores[0].data_hash == stores[1].data_hash
    # the same command continues in the form that the folder was begun in
    assert json.loads(small(tmp_path / "shards", "--json").stdout)["present"] == 3
    assert "begun with shards" in fault(small(tmp_path / "shards", "--npz"), UsageError)
    assert "begun with npz" in fault(small(tmp_path / "npz", "--no-npz"), UsageError)
    assert "scans" in fault(small(tmp_path / "x", "--no-npz", "--lidar"), UsageError)


def test_sessions_are_tasks_of_local_processes_too(tmp_path: Path) -> None:
    """`--engine local` runs the function over the sessions that Dask runs, with the same bytes."""
    small_city = ("--set", "prepare.procedural_size_m=400", "--json")
    for name, engine in (("alone", ()), ("tasks", ("--engine", "local", "--workers", 2))):
        url = (tmp_path / name).as_uri()
        result = run(*SMALL, *small_city, "--store", url, *engine)
        assert json.loads(result.stdout)["made"] == 3, result.exception
    alone, tasks = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()}
                    for n in ("alone", "tasks"))  # fmt: skip
    assert alone == tasks


def test_above_5_gb_shards_alone_are_the_default_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "NPZ_LIMIT_BYTES", 1e5)
    result = small(tmp_path / "a", "--dry-run", "--json")
    assert json.loads(result.stdout)["npz"] is False
    assert "shards alone are written: npz files would take" in result.stderr
    assert json.loads(small(tmp_path / "a", "--dry-run", "--json", "--npz").stdout)["npz"] is True


def test_agents_are_taken_in_turn_or_alone(tmp_path: Path) -> None:
    assert small(tmp_path, "--agents", "rover").exit_code == 0
    assert len(list(tmp_path.glob("rover_*"))) == 3 and not list(tmp_path.glob("drone_*"))


def test_patterns_by_name_and_a_preview(tmp_path: Path) -> None:
    options = ("--pattern", "orbit", "--pattern", "patrol", "--preview")
    result = small(tmp_path / "out", *options)
    assert result.exit_code == 0, result.exception
    told = [json.loads(p.read_text()) for p in tmp_path.glob("out/*/session.json")]
    assert {(t["agent"], t["pattern"]) for t in told} == {("drone", "orbit"), ("rover", "patrol")}
    for name in ("preview.png", "preview_frames.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
        assert name in result.stderr


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_place_too_small_says_how_large_it_must_be(tmp_path: Path, dry: list[str]) -> None:
    result = small(tmp_path / "out", *dry, "--set", "prepare.procedural_size_m=250")
    assert "a place of at least" in fault(result, DataError)
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_usage_errors(tmp_path: Path) -> None:
    assert "--agents tank" in fault(small(tmp_path, "--agents", "tank"), UsageError)
    assert "--pattern zigzag" in fault(small(tmp_path, "--pattern", "orbit,zigzag"), UsageError)
    assert "no rover follows" in fault(small(tmp_path, "--pattern", "orbit"), UsageError)
    assert "--fill jelly" in fault(small(tmp_path, "--fill", "jelly"), UsageError)
    assert "test_local" in fault(run("--config", "test_locl"), ConfigError)
    assert run("--frames", 1).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_missing_and_empty_inputs_are_data_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        result = run(*SMALL, "--input", tmp_path / name, "--output", tmp_path / "out")
        assert name in fault(result, DataError)
    assert not (tmp_path / "out").exists()


def test_another_plan_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    assert small(tmp_path).exit_code == 0
    assert "another city, seed" in fault(small(tmp_path, "--seed", 7), DataError)


def test_without_a_terminal_lines_come_at_a_steady_pace(capsys: pytest.CaptureFixture[str]) -> None:
    from vlwm.commands.shared.frame_progress import LineProgress

    lines = LineProgress(total=100, every_s=0.0)
    for done in (0, 1, 50):  # the first frame compiles: it says nothing about the pace
        lines("drone_x", done, 100)
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "planning routes ..." and told[2] == "drone_x: 1 of 100 frames"
    assert len(told) == 4 and told[3].startswith("drone_x: 50 of 100 frames, ")


def test_the_installed_command_ends_with_the_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vlwm", "prepare", "--input", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 4 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "absent" in done.stderr


def test_a_folder_and_a_store_get_a_card_for_the_hub(tmp_path: Path) -> None:
    assert small(tmp_path / "toy", "--card").exit_code == 0
    store = ("--store", f"file://{tmp_path}/store", "--set", "prepare.procedural_size_m=400")
    result = run(*SMALL, *store, "--card")
    assert result.exit_code == 0, result.exception
    assert f"hf upload --repo-type dataset user/name {tmp_path}/store" in result.stderr
    for name in ("toy", "store"):
        card = (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\nlicense: apache-2.0\n") and f"# {name}" in card
        assert "36 frames in 3\nsessions" in card and "50 x 50 x 30 cells" in card
        assert all(f"| {split} | 1 |" in card for split in ("train", "val", "test"))
        assert "nothing measured here carries over to a real one" in card
    assert len(list((tmp_path / "store").glob("*.shard"))) == 3


def test_a_store_elsewhere_gets_no_card() -> None:
    words = fault(run(*SMALL, "--store", "s3://bucket/x", "--card"), UsageError)
    assert "--card writes into a folder of this machine" in words
