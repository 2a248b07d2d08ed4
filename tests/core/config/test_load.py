"""Configs: the users' vocabulary resolves, survives JSON, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlwm.core.config.load import config_from_dict, list_presets, load_config
from vlwm.core.config.schema import Config
from vlwm.core.errors import ConfigError

GUIDE = """
import os
import sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

root = os.path.dirname(__file__)
point_cloud_range = [-40.0, -40.0, -2.0, 40.0, 40.0, 150.0]
voxel_size = [0.4, 0.4, 1.25]       # → 200×200×121 grid
low, high = point_cloud_range[:3], point_cloud_range[3:]
grid_size = [int((high[i] - low[i]) // voxel_size[i]) for i in range(3)]
history_frames = 4
future_frames = 6
total_frames = history_frames + future_frames
optimizer = dict(type='AdamW', lr=1e-4, weight_decay=0.01)
lr_config = dict(policy='CosineAnnealing', min_lr=1e-6, warmup='linear', warmup_iters=100)
grad_clip = dict(max_norm=35, norm_type=2)
base = dict(type='TransVQVAE', freeze_vae=True)
model = dict(
    **base,
    freeze_transformer=False,
    freeze_pose=False,
    vae=dict(type='VAERes2D', encoder_cfg=dict(ch=64)),
    num_frames=total_frames,
)
runner = dict(type='EpochBasedRunner', max_epochs=12)
checkpoint_config = dict(interval=2, max_keep_ckpts=3)
evaluation = dict(interval=1, save_best='loss')
log_config = dict(interval=20, hooks=[dict(type='TextLoggerHook')])
optimizer_config = dict(grad_clip=dict(max_norm=20, norm_type=2))
data = dict(samples_per_gpu=3, workers_per_gpu=8, train=dict(type='X', pipeline=[1, 2]))
train_pipeline = [dict(type='Load'), dict(type='Collect', keys=['a', 'b'])]
dist_params = dict(backend='nccl')
fp16 = dict(loss_scale=512.0)
load_from = f"{root}/latest.pth"
log_level = 'INFO'
"""


def test_users_file_in_full_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "finetune_mine.py"
    path.write_text(GUIDE)
    notes: list[str] = []
    config = load_config(path, on_note=notes.append)
    assert config.name == "finetune_mine"
    assert config.max_epochs == 12
    assert config.grad_clip.max_norm == 20.0
    assert config.checkpoint_config.interval == 2
    assert config.checkpoint_config.max_keep_ckpts == 3
    assert config.log_config.interval == 20
    assert config.data.samples_per_gpu == 3
    assert config.amp is True
    assert config.load_from == f"{tmp_path.resolve()}/latest.pth"
    assert config.model.freeze_vae is True
    text = " ".join(notes)
    assert "runner.max_epochs is read as max_epochs" in text
    assert "train_pipeline" in text and "model.vae" in text


def test_every_preset_resolves_and_survives_json() -> None:
    names = {
        "finetune_tokyo", "finetune_nuscenes", "finetune_uavscenes", "finetune_6dof",
        "finetune_nuscenes_6dof", "finetune_nuscenes_classes", "test_local", "tokyo_small",
        "finetune_tokyo_lidar", "tokyo_small_lidar", "test_local_lidar",
    }  # fmt: skip
    assert set(list_presets()) == names
    for name in names:
        config = load_config(name)
        assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_guides_defaults() -> None:
    config = load_config("finetune_tokyo")
    assert (config.optimizer.lr, config.max_epochs, config.seed) == (1e-4, 50, 42)
    assert (config.data.samples_per_gpu, config.data.workers_per_gpu) == (3, 8)
    assert config.load_from == "pretrained/occworld/latest.pth"
    assert (config.loss.focal_alpha, config.loss.focal_gamma) == (0.99, 2.0)
    assert (config.loss.dice_weight, config.loss.mean_mode, config.loss.mean_weight) == (
        1.0, "relative", 1.0,
    )  # fmt: skip
    guides = load_config("finetune_tokyo", ("loss.mean_mode='absolute'", "loss.mean_weight=10"))
    assert (guides.loss.mean_mode, guides.loss.mean_weight) == ("absolute", 10.0)


def test_absent_path_falls_back_to_its_preset() -> None:
    notes: list[str] = []
    config = load_config("config/finetune_tokyo.py", on_note=notes.append)
    assert config.name == "finetune_tokyo"
    assert "config/finetune_tokyo.py does not exist" in notes[0]


def test_base_is_inherited_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("optimizer = dict(lr=3e-4, weight_decay=0.5)\nmax_epochs = 7\n")
    (tmp_path / "b.py").write_text("_base_ = ['./a.py']\noptimizer = dict(lr=1e-3)\n")
    (tmp_path / "c.py").write_text("_base_ = './a.py'\noptimizer = dict(_delete_=True, lr=1e-3)\n")
    b, c = load_config(tmp_path / "b.py"), load_config(tmp_path / "c.py")
    assert (b.optimizer.lr, b.optimizer.weight_decay, b.max_epochs) == (1e-3, 0.5, 7)
    assert c.optimizer.weight_decay == Config().optimizer.weight_decay


def test_overrides_win() -> None:
    config = load_config("tokyo_small", ["optimizer.lr=5e-5", "data_root=/somewhere", "amp=false"])
    assert (config.optimizer.lr, config.data_root, config.amp) == (5e-5, "/somewhere", False)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("optimzer = dict(lr=1)", "did you mean optimizer"),
        ("optimizer = dict(lrr=1e-3)", "did you mean optimizer.lr"),
        ("history_frame = 4", "did you mean history_frames"),
        ("data = dict(samples_per_gpu='many')", "a whole number"),
        ("voxel_size = [0.4, 0.4]", "3 numbers"),
        ("voxel_size = [0.4, 0.4, 0]", "above 0"),
        ("point_cloud_range = [0, 0, 0, -1, 1, 1]", "larger x, y, z"),
        ("optimizer = dict(type='SGD')", "use 'AdamW'"),
        ("model = dict(use_tokens=False, freeze_vae=False)", "nothing trains it"),
        ("_base_ = './nowhere.py'", "no such _base_ file"),
        ("max_epochs = undefined_name", "not defined above"),
        ("max_epochs = 1 / 0", "cannot evaluate"),
        ("x = __import__('os').system('true')", "is not executed"),
        ("import subprocess", "is not executed"),
        ("def f(): pass", "is not executed"),
        ("x = (1).__class__", "is not executed"),
        ("x = 9 ** 9 ** 9", "too large"),
        ("x = [0] * 10 ** 9", "too many"),
        ("max_epochs = (", "not a config file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, body: str, words: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(body + "\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert words in str(error.value)
    assert error.value.exit_code == 2
    assert "bad.py" in str(error.value) or "cannot be" in str(error.value)


def test_nothing_in_a_config_is_executed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "evil.py"
    path.write_text(f"x = open({str(marker)!r}, 'w')\n")
    with pytest.raises(ConfigError):
        load_config(path)
    assert not marker.exists()


def test_circular_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("_base_ = './b.py'\n")
    (tmp_path / "b.py").write_text("_base_ = './a.py'\n")
    with pytest.raises(ConfigError, match="loop"):
        load_config(tmp_path / "a.py")


@pytest.mark.parametrize("text", ["optimizer.lr", "optimizer.lrr=1", "train_pipeline=3"])
def test_bad_overrides_are_named(text: str) -> None:
    with pytest.raises(ConfigError):
        load_config("tokyo_small", [text])


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean finetune_tokyo"):
        load_config("finetune_tokio")


def test_loops_in_a_config_end_within_a_second(tmp_path: Path) -> None:
    text = "x = [0 for a in range(400) for b in range(400)]\n"
    (tmp_path / "c.py").write_text('_base_ = "test_local.py"\n' + text)
    with pytest.raises(ConfigError, match="takes too long"):
        load_config(str(tmp_path / "c.py"))
