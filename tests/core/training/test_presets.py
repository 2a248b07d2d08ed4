"""Each preset trains on one known city in each reader's format and ends in the same score table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.core.data.recordings.formats import write_folder
from tests.core.data.recordings.known_city import KnownCity
from tests.core.data.recordings.readers import (
    test_argoverse2,
    test_bags,
    test_depth_sets,
    test_kitti,
    test_nuscenes,
    test_uavscenes,
)
from tests.core.data.recordings.sessions import STILL
from vlwm.cli import app
from vlwm.core.city.procedural import procedural_city  # noqa: F401 - imported before the clock runs
from vlwm.core.data.generation.frame_jobs import Scene
from vlwm.core.geometry.frames import heading_of
from vlwm.core.geometry.grid import VoxelGrid
from vlwm.core.geometry.voxelize import TriangleTiles

ROWS = ("model", "memory_baseline", "copy_last", "model_plan", "true_pose_memory")
SMALL_GRID = ("point_cloud_range=[-24,-24,-2,24,24,28]", "voxel_size=[1.6,1.6,5.0]")
TINY = (
    "history_frames=2", "future_frames=2", "tokenizer.max_epochs=2", "tokenizer.base_channels=8",
    "tokenizer.embed_dim=8", "tokenizer.codebook_size=16", "tokenizer.num_res_blocks=1",
    "model.channels=[8,8,8]", "model.num_heads=2", "model.layers_per_level=1",
    "model.memory_channels=8", "model.memory_levels=2", "model.pose_channels=8", "max_epochs=2",
    "data.samples_per_gpu=2", "data.workers_per_gpu=0", "data.motion_steps=3",
    "data.fusion_steps=3", "data.horizons=1", "lr_config.warmup_iters=2", "log_config.interval=1",
)  # fmt: skip
SPLITS = ("train", "val", "test")


def cities(**changes: float) -> list[KnownCity]:
    """Three flights through the known city, on other arcs: one for each split."""
    return [replace(STILL, turn_rad_s=turn, **changes) for turn in (0.5, 0.4, 0.3)]


def folder(root: Path) -> list[object]:
    """By the generic door, a command for each recording."""
    lines = []
    for split, city in zip(SPLITS, cities(blocks=36), strict=True):
        place = write_folder(root / split, city.recording)
        lines.append(["--points", place / "points", "--poses", place / "poses.txt",
                      "--extrinsic", place / "extrinsic.yaml"])  # fmt: skip
    return lines


def bags(root: Path) -> list[object]:
    root.mkdir()
    for split, city in zip(SPLITS, cities(blocks=36), strict=True):
        test_bags.write_rosbags(root / f"{split}.bag", "ROS1_NOETIC", "", "cloud", "odom", city)
    return [["--dataset", "rosbag", "--input", root]]


def nuscenes(root: Path) -> list[object]:
    names = ("scene-0001", "scene-0010", "scene-0916")
    roots = [
        test_nuscenes.write(root / name, city.recording, name)
        for name, city in zip(names, cities(scan_hz=10.0), strict=True)
    ]
    return [["--dataset", "nuscenes", *(w for r in roots for w in ("--input", r))]]


def with_labels(root: Path) -> list[object]:
    """Occ3D labels by the height of the exact voxels: ground is driveable, the rest is manmade."""
    grid = VoxelGrid.from_range((-40, -40, -1, 40, 40, 5.4), (0.4, 0.4, 0.4))
    lines = nuscenes(root)
    for name, city in zip(("scene-0001", "scene-0010", "scene-0916"), cities(scan_hz=10.0),
                          strict=True):  # fmt: skip
        scene = Scene(TriangleTiles.build(city.city.triangles), city.city, grid, "surface")
        for k, now in enumerate(city.scan_times[::5]):
            place, turn = city.poses(np.array([now]))
            level = city.ground(place[:, :2])[0]
            cells = scene.frame(np.array([*place[0, :2], level, heading_of(turn)[0]]))
            kinds = np.where(np.arange(16) < 4, 11, 15)
            classes = np.where(cells > 0, kinds, 17).astype(np.uint8)
            labels = root / name / f"gts/{name}/k{k}"
            labels.mkdir(parents=True)
            np.savez_compressed(labels / "labels.npz", semantics=classes)
    return lines


def uavscenes(root: Path) -> list[object]:
    for number, city in enumerate(cities(), 1):
        test_uavscenes.write(root, city.recording, f"AMtown0{number}")
    return [["--dataset", "uavscenes", "--input", root]]


def kitti(root: Path) -> list[object]:
    for number, city in enumerate(cities()):
        test_kitti.write(root, city.recording, f"{number:02d}")
    return [["--dataset", "kitti", "--input", root]]


def argoverse2(root: Path) -> list[object]:
    pytest.importorskip("pyarrow", reason="needs the extra vlwm[argoverse2]")
    for split, city in zip(SPLITS, cities(), strict=True):
        test_argoverse2.write(root, city.recording, split)
    return [["--dataset", "argoverse2", "--input", root]]


def tartanair(root: Path) -> list[object]:
    for split, city in zip(SPLITS, cities(seconds=3.4), strict=True):
        test_depth_sets.tartan(root / split, 2, city)
    return [["--dataset", "tartanair", "--input", root]]


def midair(root: Path) -> list[object]:
    for split, city in zip(SPLITS, cities(seconds=3.4), strict=True):
        test_depth_sets.midair(root, city, split)
    return [["--dataset", "midair", "--input", root]]


Writer = Callable[[Path], list[object]]
PRESETS: dict[str, tuple[str, Writer, bool]] = {
    "6dof by the generic door": ("finetune_6dof", folder, False),
    "6dof by bags": ("finetune_6dof", bags, False),
    "nuscenes": ("finetune_nuscenes", nuscenes, True),
    "nuscenes 6dof": ("finetune_nuscenes_6dof", nuscenes, True),
    "nuscenes classes": ("finetune_nuscenes_classes", with_labels, True),
    "uavscenes": ("finetune_uavscenes", uavscenes, True),
    "6dof on kitti": ("finetune_6dof", kitti, True),
    "6dof on argoverse2": ("finetune_6dof", argoverse2, True),
    "6dof on tartanair": ("finetune_6dof", tartanair, False),
    "6dof on midair": ("finetune_6dof", midair, True),
}
"""preset, writer of three recordings, whether the data are for non-commercial use"""
IN_THE_SUITE = {"6dof by the generic door"}


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert isinstance(app, typer.Typer) and result.exit_code == 0, (result.exception, result.output)
    return result


def sets(preset: str) -> list[str]:
    # Occ3D's labels are of the whole grid of the preset
    changes = TINY if preset.endswith("_classes") else (*SMALL_GRID, *TINY)
    return [word for pair in changes for word in ("--set", pair)]


def assert_the_weights_are_restricted(work: Path) -> None:
    """The checkpoint and the card of the model say so."""
    import vlwm
    from vlwm.core.training.telemetry.provenance import non_commercial

    model = vlwm.load(work)
    assert non_commercial(model.attribution)
    model.export(work.parent / "exported")
    card = (work.parent / "exported/README.md").read_text()
    assert "The weights are for non-commercial use only." in card


def assert_the_data_are_restricted(work: Path, data: Path) -> None:
    """The card of the data says so."""
    from vlwm.core.export.dataset_card import write_dataset_card

    (data / "splits.json").write_text((work / "splits.json").read_text())
    text = write_dataset_card(data).read_text()
    assert "weights that are trained on them, are for non-commercial use only." in text


def marked(name: str) -> object:
    marks = () if name in IN_THE_SUITE else (pytest.mark.endurance,)
    return pytest.param(*PRESETS[name], id=name, marks=marks)


@pytest.mark.parametrize(("preset", "write", "restricted"), [marked(n) for n in PRESETS])
def test_a_preset_trains_on_a_known_city(
    tmp_path: Path, preset: str, write: Writer, restricted: bool
) -> None:
    data, work = tmp_path / "data", tmp_path / "run"
    for line in write(tmp_path / "in"):
        run("prepare", *line, "--config", preset, *sets(preset), "--output", data,
            "--window", "0.5")  # fmt: skip
    line = ("--config", preset, *sets(preset), "--data", data, "--work-dir", work)
    result = run("train", *line, "--from-scratch", "--no-live")
    for row in ROWS:
        assert row in result.stdout, result.stdout
    assert "PREDICTED TRACK" in result.stdout and "PLAN TRACK" in result.stdout
    assert ("non-commercial use, and so are the weights" in result.stderr) == restricted
    scores = json.loads((work / "scores.json").read_text())
    if restricted:
        assert_the_weights_are_restricted(work)
        assert_the_data_are_restricted(work, data)
    assert scores["n_windows"] >= 1
    for row in ROWS:
        assert all(value is not None for value in scores["scores"][row]["iou"])
    if preset.endswith("_classes"):
        assert "FIELD'S PROTOCOL" in result.stdout and "driveable_surface" in result.stdout
        block = scores["classes"]["methods"]
        assert set(block) == {"model", "model_plan", "copy_last", "constant_velocity_warp"}
        assert block["copy_last"]["classes_left_out"] == [15, 15]
        assert 0.1 < block["copy_last"]["miou"][0] < block["constant_velocity_warp"]["miou"][0]


@pytest.mark.endurance
def test_a_made_city_and_recordings_train_together(tmp_path: Path) -> None:
    """One grid, splits by folder, and the stricter of two licences on all that is made."""
    preset = ("--config", "finetune_6dof", *sets("finetune_6dof"))
    made, recorded, work = (tmp_path / name for name in ("made", "recorded", "run"))
    city = (*SMALL_GRID, "prepare.procedural_size_m=500")
    changes = [word for pair in city for word in ("--set", pair)]
    run("prepare", "--config", "test_local", *changes, "--sessions", 3, "--frames", 8,
        "--output", made)  # fmt: skip
    for line in kitti(tmp_path / "in"):
        run("prepare", *line, *preset, "--output", recorded, "--window", "0.5")
    sources = f"[{{'root': '{made}', 'weight': 2.0}}, {{'root': '{recorded}'}}]"
    train = ("--set", f"data.train={sources}", "--work-dir", work, "--from-scratch", "--no-live")
    result = run("train", *preset, *train)
    assert "non-commercial use, and so are the weights" in result.stderr
    splits = json.loads((work / "splits.json").read_text())["sources"]
    assert splits["made"]["regions"] and not splits["made"]["sessions"]  # by area
    assert set(splits["recorded"]["sessions"].values()) == {"train", "val", "test"}
    assert_the_weights_are_restricted(work)
    scores = json.loads((work / "scores.json").read_text())
    assert scores["n_windows"] >= 1 and "KITTI" in json.dumps(scores["attribution"])
