"""`--auto`: the choice follows table, flags and folder; the probe leaves no trace."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.core.training import toy
from tests.core.training.comparing import same
from vlwm.core.config.load import load_config
from vlwm.core.config.schema import Config
from vlwm.core.errors import DataError, TrainingError, UsageError
from vlwm.core.files import write_json
from vlwm.core.hardware.advice import GIB, Advice, advise
from vlwm.core.hardware.gpu import Gpu, chosen
from vlwm.core.hardware.host import Host
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.loop.batch_probe import probe
from vlwm.core.training.options import TrainOptions
from vlwm.core.training.runtime.stop_signal import StopRequested, StopSignal
from vlwm.core.training.startup.auto_config import Choice, Fixed, choose

HOST = Host(16, None, 64 * GIB, None, 0, 8 * GIB, None, False)


def gpu(free_gib: float, total_gib: float = 80.0, capability: tuple[int, int] = (8, 0)) -> Gpu:
    return Gpu(0, "a card", None, int(total_gib * GIB), int(free_gib * GIB), capability=capability)


def on(*gpus: Gpu) -> Advice:
    return advise(gpus, HOST)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with one session."""
    (tmp_path / "data" / "drone_1" / "occupancy").mkdir(parents=True)
    return tmp_path / "data"


def ask(root: Path, advice: Advice, *sets: str, fixed: Fixed | None = None, **more: Any) -> Choice:
    config = load_config("finetune_tokyo", (f"data_root={str(root)!r}", *sets))
    options = TrainOptions(work_dir=root.parent / "run", **more)
    return choose(config, options, advice, ("seen",), fixed or Fixed())


@pytest.mark.parametrize(("free", "batch"), [(79.0, 8), (39.4, 3), (23.6, 2), (22.4, 1), (13.7, 1)])
def test_the_batch_is_the_tables(root: Path, free: float, batch: int) -> None:
    choice = ask(root, on(gpu(free)))
    assert choice.config.data.samples_per_gpu == batch
    assert choice.config.amp and not choice.config.model.checkpoint_activations
    assert choice.options.auto is not None and choice.options.auto.microbatch == batch
    assert f"batch {batch}" in choice.options.auto.paragraph.lower()


def test_where_no_row_fits_memory_is_saved_in_every_way(root: Path) -> None:
    choice = ask(root, on(gpu(9.6, 10.0, (7, 5))), fixed=Fixed(amp=False))
    assert choice.config.data.samples_per_gpu == 1
    assert choice.config.amp and choice.config.model.checkpoint_activations
    assert choice.options.auto is not None
    assert "fp16 with a loss scaler" in choice.options.auto.paragraph
    assert "model.checkpoint_activations=True" in choice.flags


def test_without_a_gpu_the_config_stays_and_full_size_is_called_slow(root: Path) -> None:
    choice = ask(root, on())
    assert choice.config.data.samples_per_gpu == 3
    assert choice.options.auto is not None and choice.options.auto.microbatch is None
    assert "float32" in choice.options.auto.paragraph
    assert "tokyo_small" in choice.options.auto.paragraph


def test_the_table_is_silent_about_smaller_grids(root: Path) -> None:
    choice = ask(root, on(gpu(9.6)), "voxel_size=[0.8, 0.8, 2.5]")
    assert choice.config.data.samples_per_gpu == 3
    assert not choice.config.model.checkpoint_activations
    assert choice.options.auto is not None and choice.options.auto.microbatch is None


def test_a_flag_is_never_chosen_over(root: Path) -> None:
    fixed = Fixed(batch=True, workers=True, amp=True)
    choice = ask(
        root, on(gpu(79.0)), "data.samples_per_gpu=5", "data.workers_per_gpu=3", "amp=False",
        fixed=fixed, from_scratch=True,
    )  # fmt: skip
    data = choice.config.data
    assert (data.samples_per_gpu, data.workers_per_gpu, choice.config.amp) == (5, 3, False)
    assert choice.options.auto is not None and choice.options.auto.microbatch == 8
    assert choice.flags == ("--batch-size", "5", "--workers", "3", "--no-amp", "--from-scratch")


def test_the_fullest_of_several_gpus_decides(root: Path) -> None:
    gpus = (gpu(79.0), gpu(79.0), gpu(39.4))
    assert [g.memory_free_bytes for g in chosen(gpus, (0, 2))] == [
        gpus[2].memory_free_bytes, gpus[0].memory_free_bytes,
    ]  # fmt: skip
    assert chosen(gpus, ()) == gpus and chosen(gpus, (7, 8)) == gpus
    assert ask(root, on(*chosen(gpus, (0, 2)))).config.data.samples_per_gpu == 3


def test_other_gpus_are_proposed_unless_some_were_chosen(root: Path) -> None:
    def paragraph(*gpus: Gpu, **more: Any) -> str:
        auto = ask(root, on(*gpus), **more).options.auto
        assert auto is not None
        return auto.paragraph

    assert "One of 2 trains: --gpu-ids 0,1 takes all" in paragraph(gpu(79.0), gpu(79.0))
    assert "--gpu-ids" not in paragraph(gpu(79.0))
    assert "--gpu-ids" not in paragraph(gpu(79.0), gpu(79.0), gpu_id=0)


def test_weights_are_used_where_they_are(root: Path, tmp_path: Path) -> None:
    without = ask(root, on())
    assert without.options.from_scratch and without.options.auto is not None
    assert "vlwm download --models" in without.options.auto.paragraph
    weights = tmp_path / "latest.pth"
    weights.touch()
    found = ask(root, on(), f"load_from={str(weights)!r}")
    assert not found.options.from_scratch and found.options.auto is not None
    assert f"weights from {weights}" in found.options.auto.paragraph.lower()


def hold_a_run(folder: Path, config: Config, state: str = "stopped") -> None:
    run = RunFolder(folder).create()
    run.last.touch()
    write_json(run.config_json, config.to_dict())
    run.write_status({"state": state})


def test_a_run_that_is_here_goes_on_with_its_own_batch(root: Path) -> None:
    begun = ask(root, on(gpu(79.0)))
    hold_a_run(root.parent / "run", begun.config)
    again = ask(root, on(gpu(23.6)), "max_epochs=60")
    assert again.options.resume and again.config.data.samples_per_gpu == 8
    assert again.options.auto is not None and again.options.auto.microbatch == 2
    assert "--no-resume" in again.options.auto.paragraph and "--resume" in again.flags
    fresh = ask(root, on(gpu(23.6)), new_run=True)
    assert not fresh.options.resume and fresh.config.data.samples_per_gpu == 2
    with pytest.raises(UsageError, match=r"another network: model.memory_channels \d+ \(now 32\)"):
        ask(root, on(gpu(23.6)), "model.memory_channels=32")
    hold_a_run(root.parent / "run", begun.config, "done")
    done = ask(root, on(gpu(79.0))).options.auto
    assert done is not None and "finished" in done.paragraph


def test_beginning_anew_and_going_on_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--no-resume"):
        TrainOptions(new_run=True, resume_from=Path("x.pth"))


def test_with_nothing_here_it_says_what_to_fetch(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vlwm download fetches") as error:
        ask(tmp_path / "none", on(), f"prepare.input={str(tmp_path / 'raw')!r}")
    assert "--config test_local" in str(error.value) and error.value.exit_code == 4


def test_city_models_that_are_here_are_prepared(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "533935_bldg.obj").write_text("v 0 0 0\n")
    choice = ask(tmp_path / "none", on(), f"prepare.input={str(raw)!r}")
    assert choice.options.auto is not None
    assert f"the city models in {raw} are prepared" in choice.options.auto.paragraph.lower()


# The probe


def trainer(folder: Path, **task: Any) -> Any:
    torch.manual_seed(3)
    return toy.build(folder, toy.config(), toy.ToyTask(batch=8, **task), microbatch=8)


def state_of(built: Any) -> dict[str, Any]:
    content: dict[str, Any] = built.state.content()
    return {key: value for key, value in content.items() if key != "sampler"}


@pytest.mark.parametrize(
    ("fits", "first", "grow", "found"),
    [(99, 8, True, 8), (99, 2, True, 8), (3, 8, True, 2), (5, 2, True, 4), (99, 2, False, 2),
     (3, 4, False, 2), (1, 1, True, 1)],
)  # fmt: skip
def test_the_probe_finds_the_microbatch_and_puts_everything_back(
    tmp_path: Path, fits: int, first: int, grow: bool, found: int
) -> None:
    import copy

    built = trainer(tmp_path)
    built.task.memory = fits
    before = copy.deepcopy(state_of(built))
    result = probe(built.state, built.settings, built.stop, first, grow=grow)
    assert result.microbatch == found == built.state.stepper.microbatch
    assert result.step_s > 0 and result.memory_gb > 0
    assert same(before, state_of(built))
    assert built.settings.batch_size == 8


def test_a_probed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    plain, probed = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    torch.manual_seed(4)
    plain.fit()
    torch.manual_seed(4)
    probe(probed.state, probed.settings, probed.stop, 8, grow=True)
    probed.fit()
    assert same(state_of(plain)["model"], state_of(probed)["model"])
    assert same(state_of(plain)["optimizer"], state_of(probed)["optimizer"])


def test_a_validation_that_does_not_fit_lowers_the_microbatch(tmp_path: Path) -> None:
    built = trainer(tmp_path)
    plain, sizes = built.task.validate, []

    def validate(pause: Any, size: int) -> Any:
        sizes.append(size)
        pause(size > 2)
        return plain(pause, size)

    built.task.validate = validate
    assert probe(built.state, built.settings, built.stop, 8, grow=True).microbatch == 2
    assert sizes == [8, 4, 2]


def test_the_probe_answers_a_signal_and_one_sample_that_does_not_fit(tmp_path: Path) -> None:
    built = trainer(tmp_path / "a")
    stop = StopSignal()
    stop.received = 15
    with pytest.raises(StopRequested):
        probe(built.state, built.settings, stop, 8, grow=True)
    built = trainer(tmp_path / "b")
    built.task.memory = 0
    with pytest.raises(TrainingError, match="one sample does not fit"):
        probe(built.state, built.settings, built.stop, 8, grow=True)


# Whole runs


def test_auto_trains_says_why_and_goes_on_by_itself(
    tiny: Any, tmp_path: Path, tiny_data: Path, whole_run: Path
) -> None:
    folder = tmp_path / "run"
    code, out, err = tiny.finish(folder, tiny_data, "--auto", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert "A new run begins" in result["auto"] and result["auto"] in err
    assert len(re.findall("the probe ran batches", err)) == 2
    tiny.assert_same_run(folder, whole_run)  # the probe changed no bit
    code, out, err = tiny.finish(folder, tiny_data, "--auto")
    assert code == 0 and "is finished and only evaluated again" in err
    assert not list(folder.glob("previous_*")) and "step 1:" not in err
    code, out, err = tiny.finish(folder, tiny_data, "--auto", "--no-resume", "--stage", "tokenizer")
    assert code == 0 and "moved aside" in err and list(folder.glob("previous_*"))


def test_auto_with_nothing_here_ends_with_4(tiny: Any, tmp_path: Path) -> None:
    code, _, err = tiny.finish(
        tmp_path / "run", tmp_path / "data", "--auto",
        "--set", "prepare.source='tiles'", "--set", f"prepare.input={str(tmp_path / 'raw')!r}",
    )  # fmt: skip
    assert code == 4 and "vlwm download" in err and not (tmp_path / "run").exists()


def test_auto_prepares_what_was_downloaded(tiny: Any, tmp_path: Path, shared_data: Path) -> None:
    raw = shared_data / "plateau" / "tokyo_marunouchi_obj"
    code, _, err = tiny.finish(
        tmp_path / "run", tmp_path / "data", "--auto", "--stage", "tokenizer",
        "--set", "prepare.source='tiles'", "--set", f"prepare.input={str(raw)!r}",
    )  # fmt: skip
    assert code == 0, err
    assert "are prepared in" in err and "prepared 32 frames of 4 sessions" in err
    assert (tmp_path / "data" / "splits.json").exists()
