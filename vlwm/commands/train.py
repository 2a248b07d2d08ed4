"""`vlwm train`: from data to an evaluated checkpoint, in one run folder."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from vlwm.commands.options import train as opt
from vlwm.commands.shared.after import After, BackupUrl, StopInstance, WhenDone
from vlwm.commands.shared.data import PackedDir, local_data
from vlwm.core.vocabulary import Split, Stage

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from vlwm.core.config.schema import Config
    from vlwm.core.training.options import TrainOptions, TrainResult


Section = TypeVar("Section", bound="DataclassInstance")
"""a config, or one of its sections"""


# The signature is the table of options, and Typer reads nothing else: with it and the help text a
# command is longer than a function should be. What it does is one line an option group.
def train(
    config: opt.Config = "finetune_tokyo",
    work_dir: opt.WorkDir = Path("checkpoints"),
    data: opt.Data = None,
    packed_dir: PackedDir = None,
    stage: opt.Stage = "both",
    batch_size: opt.BatchSize = None,
    lr: opt.Lr = None,
    epochs: opt.Epochs = None,
    seed: opt.Seed = None,
    from_scratch: opt.FromScratch = False,
    set_: opt.Set = None,
    auto: opt.Auto = False,
    resume: opt.Resume = None,
    resume_from: opt.ResumeFrom = None,
    keep: opt.Keep = None,
    eval_only: opt.EvalOnly = False,
    gpu_ids: opt.GpuIds = None,
    workers: opt.Workers = None,
    amp: opt.Amp = None,
    compile_: opt.Compile = False,
    wandb: opt.Wandb = False,
    wandb_project: opt.WandbProject = "occworld-tokyo",
    wandb_run_name: opt.WandbRunName = None,
    wandb_tags: opt.WandbTags = None,
    live: opt.Live = None,
    price: opt.Price = None,
    backup: BackupUrl = None,
    when_done: WhenDone = None,
    stop_instance: StopInstance = False,
    dry_run: opt.DryRun = False,
    json_: opt.Json = False,
    more: opt.More = None,
) -> None:
    """Train the tokenizer, then the world model, then evaluate it on the test split.

    Run the same command again after an interruption to resume.

    Examples:

      [cyan]vlwm train --auto[/]

      [cyan]vlwm train --config test_local --work-dir ./test_out --epochs 2[/]

      [cyan]vlwm train --resume[/]

      [cyan]vlwm train --set optimizer.lr=5e-5 --stage world[/]
    """
    from vlwm.commands.shared.output import note
    from vlwm.core.config.load import load_config
    from vlwm.core.training.options import TrainOptions, WandbOptions

    tags = _tags(wandb_tags, more)
    base = load_config(config, set_ or (), note)
    # the test split is scored at the end, and by the first process alone
    later = () if eval_only else (Split.TEST.value,)
    folder = local_data(data or base.data_root, packed_dir, fetch=not dry_run, later=later)
    if data is not None:  # one folder in place of several
        base = _changed(base, {"data": {"train": ()}})
    plan = _with_flags(
        base, stage, folder, batch_size, lr, epochs, seed, workers,
        amp, keep,
    )  # fmt: skip
    gpus = _gpus(gpu_ids)
    options = TrainOptions(
        work_dir=work_dir,
        stage=stage,
        resume=resume is True,
        resume_from=resume_from,
        new_run=resume is False,
        from_scratch=from_scratch,
        eval_only=eval_only,
        gpu_id=gpus[0] if gpus else None,
        compile=compile_,
        wandb=WandbOptions(wandb_project, wandb_run_name, tags) if wandb else None,
        price_per_h=price,
        command=_command(),
    )
    _tell_what_needs_a_gpu(gpu_ids, amp)
    if eval_only:
        _refuse_other_data(plan, work_dir)
    flags: tuple[str, ...] = ()
    if auto:
        from vlwm.commands.shared.auto import choose_for_this_machine
        from vlwm.core.training.startup.auto_config import Fixed

        fixed = Fixed(batch_size is not None, workers is not None, amp is not None)
        choice = choose_for_this_machine(plan, options, gpus, fixed, writes=not dry_run)
        plan, options, flags = choice.config, choice.options, choice.flags
    if dry_run:
        _show_plan(plan, options, json_)
        return
    after = After(backup, when_done, stop_instance)
    after.check(work_dir)
    if resume:
        after.fetch(work_dir)
    if len(gpus) > 1 and "WORLD_SIZE" not in os.environ:
        raise typer.Exit(_over_several(gpus, work_dir, flags))
    _run(plan, options, after, live, json_)


def _tell_what_needs_a_gpu(gpu_ids: str | None, amp: bool | None) -> None:
    """Say which options have no effect on a machine without a GPU."""
    from vlwm.commands.shared.output import mark, note
    from vlwm.core.hardware.gpu import read_gpus

    asked = [f"--gpu-ids {gpu_ids}"] if gpu_ids is not None else []
    asked += ["--amp"] if amp else []
    if asked and not read_gpus().gpus and os.environ.get("RANK", "0") == "0":
        verb = "has" if len(asked) == 1 else "have"
        note(f"{mark('warn')} this machine has no usable GPU: {' and '.join(asked)} {verb} no "
             "effect, the CPU trains in float32")  # fmt: skip


def _refuse_other_data(config: Config, work_dir: Path) -> None:
    """Refuse --eval-only where a run is there and the config's data are not: it has its own."""
    from vlwm.core.errors import DataError
    from vlwm.core.run_folder import RunFolder
    from vlwm.core.training.startup.data_on_demand import holds_sessions

    found = any(holds_sessions(Path(root)) for root in config.data_roots)
    if not found and RunFolder(work_dir).holds_a_run():
        raise DataError(
            "there are no sessions to evaluate on",
            where=", ".join(config.data_roots),
            remedy=f"vlwm eval {shlex.quote(str(work_dir.absolute()))} takes the config and the "
            "data of the run itself; or give its --config and --data",
        )


def _tags(wandb_tags: list[str] | None, more: list[str] | None) -> tuple[str, ...]:
    """Return the tags of --wandb-tags; further words are tags too, and nothing else.

    Raises:
        UsageError: words without --wandb-tags.
    """
    from vlwm.core.errors import UsageError

    if more and not wandb_tags:
        raise UsageError(
            f"unexpected argument {more[0]}", remedy="options begin with --, see vlwm train --help"
        )
    words = [*(wandb_tags or []), *(more or [])]
    return tuple(tag for word in words for tag in word.split(",") if tag)


def _run(plan: Config, options: TrainOptions, after: After, live: bool | None, json_: bool) -> None:
    """Train in this process, draw while it runs, and show what came out."""
    from vlwm.commands.shared.live import draws_live, live_view, run_links
    from vlwm.core.training.runtime.stop_signal import StopSignal

    _refuse_what_is_missing(plan, options)
    drawn = draws_live(live, json_)
    folder = options.work_dir
    with after.around(folder), StopSignal() as stop, live_view(folder, drawn=drawn):
        from vlwm.core.training.run import train as train_run  # seconds: a signal may come now

        options = dataclasses.replace(options, links=run_links(folder))
        result = train_run(plan, options, stop)
    _show_result(result, json_, options)


def _refuse_what_is_missing(plan: Config, options: TrainOptions) -> None:
    """End at once without data, before torch is imported and a picture is drawn.

    The run looks again: it knows where a run that is resumed has its data, and ends all processes
    with one sentence.
    """
    from vlwm.core.training.startup.data_on_demand import refuse_what_is_missing

    begins = not (options.resume or options.resume_from or options.eval_only)
    if begins and "WORLD_SIZE" not in os.environ:
        refuse_what_is_missing(plan, raw_will_do=options.auto is not None)


def _with_flags(
    config: Config,
    stage: str,
    data: Path | None,
    batch_size: int | None,
    lr: float | None,
    epochs: int | None,
    seed: int | None,
    workers: int | None,
    amp: bool | None,
    keep: int | None,
) -> Config:
    """Return the config with the flags; rate, batch and epochs are those of the stage."""
    own: dict[str, object] = {"lr": lr, "max_epochs": epochs, "samples_per_gpu": batch_size}
    if stage == Stage.TOKENIZER:
        config = _changed(config, {"tokenizer": own})
    else:
        config = _changed(
            config,
            {
                "optimizer": {"lr": lr},
                "max_epochs": epochs,
                "data": {"samples_per_gpu": batch_size},
            },
        )
    rest: dict[str, object] = {"data_root": None if data is None else str(data), "seed": seed}
    rest |= {"amp": amp, "checkpoint_config": {"max_keep_ckpts": keep}}
    return _changed(config, {**rest, "data": {"workers_per_gpu": workers}})


def _changed(config: Section, values: dict[str, Any]) -> Section:
    """Return a copy of nested dataclasses, changed where a value is not None."""
    changes = {}
    for name, value in values.items():
        if isinstance(value, dict):
            changes[name] = _changed(getattr(config, name), value)
        elif value is not None:
            changes[name] = value
    return dataclasses.replace(config, **changes)


def _gpus(text: str | None) -> tuple[int, ...]:
    """Return the GPU numbers of `--gpu-ids`; none where it was left out."""
    from vlwm.core.errors import UsageError

    words = [] if text is None else [word for word in text.split(",") if word]
    plain = all(word.isascii() and word.isdigit() and len(word) < 4 for word in words)
    if not plain or len(set(words)) < len(words):
        raise UsageError(f'invalid --gpu-ids "{text}"', remedy="write them as 0 or 0,1")
    return tuple(map(int, words))


def _over_several(gpus: tuple[int, ...], work_dir: Path, flags: tuple[str, ...]) -> int:
    """Start one process per GPU with this command line and more flags; return the exit code."""
    from vlwm.core.run_folder import RunFolder
    from vlwm.core.training.runtime.multi_gpu_launch import launch, refuse_missing_gpus

    refuse_missing_gpus(gpus)
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
    return launch([*sys.argv[1:], *flags], len(gpus), RunFolder(work_dir), visible)


def _command() -> str:
    """Return the command line that resumes this run."""
    words = ["vlwm", *sys.argv[1:]] if Path(sys.argv[0]).stem in ("vlwm", "__main__") else ["vlwm"]
    words = words if "train" in words else ["vlwm", "train"]
    words = [word for word in words if word != "--no-resume"]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])


def _show_plan(config: Config, options: TrainOptions, json_: bool) -> None:
    from vlwm.commands.shared.output import emit_json
    from vlwm.core.training.startup.dry_run import make_plan, plan_lines

    plan = make_plan(config, options)
    if json_:
        emit_json(plan)
        return
    if options.auto is not None:
        print(options.auto.paragraph)
    print("Plan (nothing is written):")
    for name, text in plan_lines(plan):
        print(f"  {name:<11} {text}")


def _next_command(result: TrainResult, options: TrainOptions) -> str:
    """Return what to type after a run: a picture and a film, since the scores were just printed."""
    if result.scores is None and options.stage != Stage.TOKENIZER:
        return f"vlwm eval {shlex.quote(str(result.work_dir.absolute()))}"
    return options.after(result.work_dir)


def _write_report(result: TrainResult, options: TrainOptions) -> None:
    """Write report.html into the run folder, once there are scores."""
    from vlwm.commands.shared.output import note

    if result.scores is None:
        return
    from vlwm.core.report.run_report import write_run_report

    page = write_run_report(
        result.work_dir, result.scores, run=result.work_dir, command=options.command
    )
    note(f"written: {page}")


def _show_result(result: TrainResult, json_: bool, options: TrainOptions) -> None:
    from vlwm.commands.shared.output import emit_json, note, print_table

    next_command = _next_command(result, options)
    if json_:
        _write_report(result, options)
        emit_json(
            {
                "work_dir": str(result.work_dir),
                "checkpoint": str(result.checkpoint),
                "scores": result.scores,
                "notes": list(result.notes),
                "auto": None if options.auto is None else options.auto.paragraph,
                "next": next_command,
            }
        )
        return
    if result.scores is not None:
        from vlwm.core.evaluation.scores.class_table import class_tables
        from vlwm.core.evaluation.scores.score_table import score_table

        for table in (score_table(result.scores), *class_tables(result.scores)):
            print_table(table.title, table.columns, table.rows)
            for sentence in table.sentences:
                print(sentence)
    _write_report(result, options)
    for sentence in result.notes:
        note(sentence)
    print(f"checkpoints: {result.work_dir}   best: {result.checkpoint}")
    print(f"next: {next_command}")
