"""The command line of `vlwm train`: options reach the config, mistakes end in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests import fake_machine as fake
from vlwm.commands import train as command
from vlwm.core.config.schema import Config
from vlwm.core.errors import ConfigError, DataError, MachineError, UsageError, VlwmError
from vlwm.core.training.options import TrainOptions, TrainResult

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, TrainOptions]]:
    """What the command would run, instead of running it."""
    import vlwm.core.training.run as run
    from vlwm.core.training.startup import data_on_demand

    calls: list[tuple[Config, TrainOptions]] = []

    def record(config: Config, options: TrainOptions, stop: object) -> TrainResult:
        calls.append((config, options))
        return TrainResult(options.work_dir, options.work_dir / "best.pth", None, ("a note",))

    monkeypatch.setattr(run, "train", record)
    monkeypatch.setattr(data_on_demand, "refuse_what_is_missing", lambda config, **more: None)
    return calls


def invoke(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command.train)
    return CliRunner().invoke(app, list(arguments))


def raised(*arguments: str) -> VlwmError:
    result = invoke(*arguments)
    assert isinstance(result.exception, VlwmError), result.output
    return result.exception


def test_without_data_it_ends_before_a_picture_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlwm.commands.shared import live

    monkeypatch.setattr(live, "live_view", lambda *a, **k: pytest.fail("a picture of nothing"))
    missing = str(tmp_path / "none")
    for more in ([], ["--stage", "tokenizer"], ["--auto", "--work-dir", str(tmp_path / "run")]):
        error = raised("--config", "tokyo_small", "--data", missing, *more)
        assert isinstance(error, DataError) and "vlwm download" in str(error)
    assert not (tmp_path / "run").exists()


def test_defaults_are_the_guides(asked: list[tuple[Config, TrainOptions]]) -> None:
    assert invoke().exit_code == 0
    ((config, options),) = asked
    assert (config.name, config.max_epochs, config.seed) == ("finetune_tokyo", 50, 42)
    assert config.optimizer.lr == 1e-4 and config.data.samples_per_gpu == 3
    assert options.work_dir == Path("checkpoints") and options.wandb is None
    assert not (options.resume or options.from_scratch or options.eval_only or options.compile)


def test_flags_go_over_set_and_both_over_the_config(
    asked: list[tuple[Config, TrainOptions]], tmp_path: Path
) -> None:
    words = "--config test_local --set optimizer.lr=5e-5 --set max_epochs=9 --lr 3e-4 "
    words += "--batch-size 2 --seed 7 --workers 5 --no-amp --from-scratch --gpu-ids 1 --resume "
    words += "--keep 3"
    assert invoke(*words.split(), "--data", str(tmp_path)).exit_code == 0
    ((config, options),) = asked
    assert config.optimizer.lr == 3e-4 and config.max_epochs == 9 and config.seed == 7
    assert (config.data.samples_per_gpu, config.data.workers_per_gpu) == (2, 5)
    assert config.data_root == str(tmp_path) and not config.amp
    assert options.from_scratch and options.resume and options.gpu_id == 1
    assert config.checkpoint_config.max_keep_ckpts == 3


def test_under_the_tokenizer_stage_the_flags_mean_that_stage(
    asked: list[tuple[Config, TrainOptions]],
) -> None:
    invoke("--config", "test_local", "--stage", "tokenizer", "--epochs", "3", "--lr", "0.1",
           "--batch-size", "5")  # fmt: skip
    ((config, options),) = asked
    assert options.stage == "tokenizer"
    own = config.tokenizer
    assert (own.max_epochs, own.lr, own.samples_per_gpu) == (3, 0.1, 5)
    assert (config.max_epochs, config.optimizer.lr, config.data.samples_per_gpu) == (2, 2e-3, 4)


@pytest.mark.parametrize(
    "words",
    [
        "--wandb-tags a b --wandb",
        "--wandb --wandb-tags a,b",
        "--wandb-tags a --wandb-tags b --wandb",
        "--wandb --wandb-tags a b --lr 1e-3",
    ],
)
def test_tags_may_be_written_in_any_way(
    asked: list[tuple[Config, TrainOptions]], words: str
) -> None:
    assert invoke(*words.split(), "--wandb-run-name", "r").exit_code == 0
    wandb = asked[0][1].wandb
    assert wandb is not None
    assert (wandb.project, wandb.run_name, wandb.tags) == ("occworld-tokyo", "r", ("a", "b"))


def test_wrong_use_is_named() -> None:
    assert isinstance(raised("stray"), UsageError)
    assert "--stage both_of_them" in str(raised("--stage", "both_of_them"))
    assert '--gpu-ids "x"' in str(raised("--gpu-ids", "x"))
    assert isinstance(raised("--gpu-ids", "16,17"), MachineError)
    assert "max_epochs" in str(raised("--set", "max_epoch=3"))
    assert isinstance(raised("--lr", "-1"), ConfigError)
    assert isinstance(raised("--config", "test_local", "--gpu-ids", "17"), MachineError)
    assert invoke("--epochz", "3").exit_code == 2


def test_json_is_one_object_on_stdout(asked: list[tuple[Config, TrainOptions]]) -> None:
    result = invoke("--work-dir", "here", "--json")
    value = json.loads(result.stdout)
    assert value["checkpoint"] == "here/best.pth" and value["notes"] == ["a note"]
    assert value["next"].startswith(f"vlwm eval {Path.cwd() / 'here'}")


def test_the_end_names_checkpoints_and_the_next_command(
    asked: list[tuple[Config, TrainOptions]],
) -> None:
    result = invoke("--work-dir", "here")
    assert "here/best.pth" in result.stdout
    assert f"next: vlwm eval {Path.cwd() / 'here'}" in result.stdout
    assert "a note" in result.stderr


def test_dry_run_says_it_all_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("--config", "test_local", "--dry-run", "--json")
    assert result.exit_code == 0, result.exception
    plan = json.loads(result.stdout)
    assert plan["stages"] == ["tokenizer", "world"] and plan["begins"] == "fresh"
    assert plan["grid"] == [50, 50, 30] and plan["batch_size"] == {"tokenizer": 8, "world": 4}
    train_frames = plan["data"]["train_frames"]
    assert plan["steps"]["tokenizer"] == 4 * -(-train_frames // 8)
    assert plan["parameters"]["world"] > plan["parameters"]["world_trained"] > 0
    assert plan["checkpoints_gb"] < plan["disk_free_gb"]
    assert "Plan" in invoke("--config", "test_local", "--dry-run").stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_misses_what_training_would_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(raised("--dry-run"), DataError)
    (tmp_path / "d" / "drone_1" / "occupancy").mkdir(parents=True)
    assert "--from-scratch" in str(raised("--dry-run", "--data", "d"))


def auto(environ: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`vlwm train --auto --dry-run` as a process of its own."""
    command = [sys.executable, "-m", "vlwm", "train", "--auto", "--dry-run", *words]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), **environ}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_auto_looks_at_the_machine_and_writes_nothing(tmp_path: Path) -> None:
    done = auto(fake.shell(None), tmp_path, "--config", "test_local", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert "gpu: none" in plan["auto"].lower() and "made-up city" in plan["auto"]
    assert plan["batch_size"]["world"] == 4 and not list(tmp_path.iterdir())


def test_auto_refuses_a_gpu_that_torch_does_not_reach(tmp_path: Path) -> None:
    library = fake.build_nvml(tmp_path)
    done = auto(fake.shell(library, fake.A100_80), tmp_path, "--config", "test_local")
    assert done.returncode == 3 and "torch does not reach it" in done.stderr
    hidden = fake.shell(library, fake.A100_80, CUDA_VISIBLE_DEVICES="")
    assert auto(hidden, tmp_path, "--config", "test_local").returncode == 0


def test_auto_under_a_launcher_wants_one_batch_for_all(tmp_path: Path) -> None:
    environ = fake.shell(None, WORLD_SIZE="2")
    done = auto(environ, tmp_path, "--config", "test_local")
    assert done.returncode == 2 and "--gpu-ids" in done.stderr


def test_beginning_anew_is_not_part_of_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/vlwm", "train", "--auto", "--no-resume"])
    assert command._command() == "vlwm train --auto --resume"


def test_the_guides_vram_table_is_read_between_its_rows() -> None:
    from vlwm.core.training.startup.dry_run import vram_gb

    assert [vram_gb(b) for b in (1, 2, 3, 4, 6, 8)] == [13.0, 22.0, 32.0, 40.0, 55.0, 70.0]


def test_importing_the_command_imports_no_torch() -> None:
    code = "import sys, vlwm.commands.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_options_that_need_a_gpu_are_named_on_a_machine_without_one(
    asked: list[tuple[Config, TrainOptions]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlwm.core.hardware import gpu

    monkeypatch.setattr(gpu, "read_gpus", gpu.GpuReport)
    assert "no effect" not in invoke("--config", "test_local").stderr
    assert "--gpu-ids 0 has no effect" in invoke("--config", "test_local", "--gpu-ids", "0").stderr
    both = invoke("--config", "test_local", "--gpu-ids", "0", "--amp").stderr
    assert "--gpu-ids 0 and --amp have no effect, the CPU trains in float32" in both


def test_eval_only_of_a_run_names_the_command_that_knows_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "my run"
    run.mkdir()
    (run / "last.pth").touch()
    text = str(raised("--eval-only", "--work-dir", "my run"))
    assert f"vlwm eval '{run}' takes the config and the data" in text


def test_a_dry_run_on_a_damaged_session_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "drone/occupancy").mkdir(parents=True)
    (tmp_path / "drone/session.json").write_text("null")
    error = raised("--config", "test_local", "--dry-run", "--data", str(tmp_path))
    assert "session.json must be a JSON object" in str(error)
