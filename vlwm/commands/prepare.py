"""`vlwm prepare`: city models into session folders, packed frames and splits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlwm.commands.shared import recordings as rec
from vlwm.core.vocabulary import Agent

if TYPE_CHECKING:
    from vlwm.core.city.city import City
    from vlwm.core.config.schema import Config, PrepareConfig
    from vlwm.core.data.generation.prepare import OnFrames, PrepareReport
    from vlwm.core.data.generation.store_prepare import StoreReport
    from vlwm.core.geometry.mapped_arrays import Scratch

_CITY, _MADE, _RUN = "City models", "What is made", "How to run"


def prepare(
    input_: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            help="Folder or file of city models; may be given several times.",
            rich_help_panel=_CITY,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Data folder; the config's data_root by default.",
            rich_help_panel=_MADE,
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="URL",
            help="Write shards to file:// or s3:// instead; any number of machines may run this.",
            rich_help_panel=_MADE,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="With --store: only every N-th session, from I = 0 to N-1.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    config: Annotated[
        str,
        typer.Option("--config", help="Preset or file with the grid.", rich_help_panel=_MADE),
    ] = "finetune_tokyo",
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames", min=2, help="Frames of a session; default 500.", rich_help_panel=_MADE
        ),
    ] = None,
    sessions: Annotated[
        int | None,
        typer.Option(
            "--sessions", min=1, help="Sessions in all; default 10.", rich_help_panel=_MADE
        ),
    ] = None,
    agents: Annotated[
        str | None,
        typer.Option("--agents", help="drone, rover or both; default both.", rich_help_panel=_MADE),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            "--pattern",
            metavar="NAME,...",
            help="Routes, in rotation: random, survey, orbit, canyon, patrol, revisit; mix = all.",
            rich_help_panel=_MADE,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed; default 42.", rich_help_panel=_MADE)
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option("--fill", help="surface or solid; default surface.", rich_help_panel=_CITY),
    ] = None,
    lidar: Annotated[
        bool | None,
        typer.Option(
            "--lidar/--no-lidar",
            help="Write lidar scans, 1 MB a frame; default off.",
            rich_help_panel=_MADE,
        ),
    ] = None,
    camera: Annotated[
        bool | None,
        typer.Option(
            "--camera/--no-camera",
            help="Write pictures, 900 x 1600; default off.",
            rich_help_panel=_MADE,
        ),
    ] = None,
    observe: Annotated[
        str | None,
        typer.Option(
            "--observe",
            metavar="SENSOR",
            help="Write the cells that a sensor saw: lidar, HDL-32E, VLP-16, Livox, depth, none.",
            rich_help_panel=_MADE,
        ),
    ] = None,
    pose_noise: Annotated[
        str | None,
        typer.Option(
            "--pose-noise",
            metavar="LEVEL",
            help="Errors of the believed poses: none, 5cm (0.1 degrees), 15cm (0.3 degrees).",
            rich_help_panel=_MADE,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=0, help="Number of processes (0 = all cores).", rich_help_panel=_RUN
        ),
    ] = 0,
    area: Annotated[
        str | None,
        typer.Option(
            "--area",
            metavar="MESH|LAT,LON,RADIUS",
            help="Only this part of the city.",
            rich_help_panel=_CITY,
        ),
    ] = None,
    up: Annotated[
        str | None,
        typer.Option(
            "--up",
            metavar="AXIS",
            help="Axis of OBJ files that points up: x, y, z. Default: as their buildings show.",
            rich_help_panel=_CITY,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            metavar="METRES",
            help="Metres of one unit of OBJ files. Default: as their buildings show.",
            rich_help_panel=_CITY,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first broken building.", rich_help_panel=_CITY),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a config key.", rich_help_panel=_MADE
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Draw a map and a contact sheet into the data folder.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    preview_file: Annotated[
        Path | None,
        typer.Option(
            "--preview-file",
            metavar="FILE",
            help="Save the preview to this PNG file.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Read the city and print what would be made.", rich_help_panel=_RUN
        ),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_RUN)
    ] = False,
    points: rec.Points = None,
    poses: rec.Poses = None,
    extrinsic: rec.Extrinsic = None,
    poses_of: rec.PosesOf = "body",
    axes: rec.AxesOption = None,
    dataset: rec.Dataset = None,
    rate: rec.Rate = 2.0,
    window: rec.Window = 1.5,
    lidar_delay: rec.Delay = 0.0,
    keep_moving: rec.KeepMoving = False,
    topic_points: rec.TopicPoints = None,
    topic_pose: rec.TopicPose = None,
    body_frame: rec.BodyFrame = None,
    check: rec.Check = None,
) -> None:
    """Turn city models or recordings into training data. Run the same command again to resume.

    Examples:

      [cyan]vlwm prepare --preview[/]

      [cyan]vlwm prepare --input tiles/ --config tokyo_small --frames 60 --sessions 6[/]
    """
    from vlwm.commands.shared.city import read_input, tell_city, tell_report_file
    from vlwm.commands.shared.output import note
    from vlwm.core.config.load import load_config
    from vlwm.core.data.generation.prepare import PreparePlan, outline
    from vlwm.core.data.generation.prepare import prepare as make
    from vlwm.core.data.generation.store_prepare import parse_share, prepare_store
    from vlwm.core.folder_lock import folder_lock
    from vlwm.core.geometry.mapped_arrays import Scratch
    from vlwm.core.hardware.host import usable_workers

    share = parse_share(shard)
    _check_store(store, shard, output, preview or preview_file is not None)
    resolved = load_config(config, set_ or (), note)
    request = rec.RecordingRequest(
        points=points, poses=poses, extrinsic=extrinsic, poses_of=poses_of, axes=axes,
        dataset=dataset, inputs=input_ or [], agent=agents, rate_hz=rate, window_s=window,
        lidar_delay_s=lidar_delay, keep_moving=keep_moving, topic_points=topic_points,
        topic_pose=topic_pose, body_frame=body_frame, lidar=bool(lidar), camera=bool(camera),
        strict=strict, json=json_, workers=workers or usable_workers(),
    )  # fmt: skip
    if check is not None:
        rec.check_sessions(check, resolved, strict=strict, json=json_)
        return
    if request.asked:
        rec.convert_recordings(request, resolved, output or Path(resolved.data_root))
        return
    defaults = resolved.prepare
    seen = _observed(defaults, observe, pose_noise)
    plan = PreparePlan(
        frames=frames or defaults.frames,
        sessions=sessions or defaults.sessions,
        agents=_agents(agents) or defaults.agents,
        patterns=_patterns(pattern) or defaults.patterns,
        seed=defaults.seed if seed is None else seed,
        fill=_fill(fill) or defaults.fill,
        workers=workers or usable_workers(),
        dt_s=resolved.frame_dt_s,
        lidar=defaults.lidar_model if _or(lidar, defaults.lidar) else None,
        camera=_or(camera, defaults.camera),
        observe=seen.observed_by,
        pose_noise=seen.pose_noise,
    )
    target = output or Path(resolved.data_root)
    scratch = Scratch(None if dry_run or store else target)
    city = _stored_city(store, input_, area, scratch) or read_input(
        resolved, input_, plan.seed, strict, area, scratch, up, scale
    )
    tell_city(city)
    if dry_run:
        _show_plan(outline(city, resolved, target, plan), target, json_)
        return
    if store is not None:
        _keep_tiles(store, city)
        with frame_progress(plan.sessions * plan.frames) as report:
            done_there = prepare_store(city, resolved, store, plan, report, share=share)
        _show_store(done_there, json_, config)
        return
    with (
        folder_lock(target, "vlwm prepare", note),
        frame_progress(plan.sessions * plan.frames) as report,
    ):
        done = make(city, resolved, target, plan, report)
    tell_report_file(city, target)
    if preview or preview_file:
        _draw_preview(city, resolved, target, preview_file or target / "preview.png")
    _show(done, target, json_, config)


def _check_store(store: str | None, shard: str | None, output: Path | None, drawn: bool) -> None:
    """Refuse options that do not go with --store, or that need it."""
    from vlwm.core.errors import UsageError
    from vlwm.core.store.objects import open_store

    if store is None:
        if shard is not None:
            raise UsageError("--shard belongs to --store", remedy="add --store URL")
        return
    if output is not None or drawn:
        raise UsageError(
            "--store takes the place of --output and draws no preview",
            remedy="leave out --output, --preview and --preview-file",
        )
    open_store(store)


def _stored_city(
    store: str | None, inputs: list[Path] | None, area: str | None, scratch: Scratch
) -> City | None:
    """Return the city whose tiles a store has, where no --input asks for other files."""
    from vlwm.commands.shared.output import note
    from vlwm.core.city.tiles import INDEX, TiledCity
    from vlwm.core.store.objects import open_store

    if store is None or inputs or area is not None or open_store(store).read(INDEX) is None:
        return None
    note(f"the city comes from its tiles in {store}")
    return TiledCity(open_store(store)).city(scratch)


def _keep_tiles(store: str, city: City) -> None:
    """Write the tiles of a city that was read, for the other machines."""
    from vlwm.core.city.tiles import INDEX, write_tiles
    from vlwm.core.store.objects import open_store

    opened = open_store(store)
    if not city.procedural and opened.read(INDEX) is None:
        write_tiles(city, opened)


def _show_store(report: StoreReport, json_: bool, config: str) -> None:
    from dataclasses import asdict

    from vlwm.commands.shared.output import emit_json, note, print_table

    for name in report.different:
        note(
            f"▲ {name} in the store differs from what this machine makes: the one in the store "
            "stays; see docs/data_format.md"
        )
    if json_:
        emit_json(asdict(report))
        return
    rows = [
        ["sessions", f"{report.sessions} in the plan, {report.made} made here"],
        ["made by others", f"{report.present}, and {report.twice} at the same time as here"],
        ["rate", f"{report.frames_per_s:.1f} frames/s"],
        ["finished", "yes" if report.finished else "no: other machines still work, or run again"],
        ["attribution", report.attribution],
    ]
    print_table(f"Prepared {report.store}", ["what", "value"], rows)
    if report.finished:
        print(f"next: {_train_command(report.store, config)}")


def _draw_preview(city: City, config: Config, target: Path, file: Path) -> None:
    from vlwm.commands.shared.output import note
    from vlwm.core.figures.data_preview import write_preview
    from vlwm.core.geometry.grid import VoxelGrid

    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    for drawn in write_preview(city, target, grid, file):
        note(f"drawn: {drawn}")


def _or(option: bool | None, default: bool) -> bool:
    return default if option is None else option


def _observed(
    defaults: PrepareConfig, observe: str | None, pose_noise: str | None
) -> PrepareConfig:
    """Return the config's values with those of the options, which the config checks."""
    from dataclasses import replace

    return replace(
        defaults,
        observe=observe or defaults.observe,
        pose_noise=pose_noise or defaults.pose_noise,
    )


def _agents(text: str | None) -> tuple[str, ...] | None:
    from vlwm.core.errors import UsageError

    known: dict[str, tuple[str, ...]] = {"both": tuple(agent.value for agent in Agent)}
    known |= {agent.value: (agent.value,) for agent in Agent}
    if text is None or text in known:
        return known.get(text) if text else None
    raise UsageError(f"--agents {text} is unknown", remedy="use drone, rover or both")


def _patterns(given: list[str] | None) -> tuple[str, ...]:
    """Return names as they were given, repeated or with commas between."""
    from vlwm.core.config.schema import PATTERNS
    from vlwm.core.errors import UsageError

    names = tuple(n.strip() for text in given or () for n in text.split(",") if n.strip())
    unknown = [n for n in names if n not in ("mix", *PATTERNS)]
    if unknown:
        known = ", ".join(("mix", *PATTERNS))
        raise UsageError(f"--pattern {unknown[0]} is unknown", remedy=f"use some of {known}")
    return names


def _fill(text: str | None) -> str | None:
    from vlwm.core.errors import UsageError

    if text in (None, "surface", "solid"):
        return text
    raise UsageError(f"--fill {text} is unknown", remedy="use surface or solid")


def _show_plan(values: dict[str, Any], target: Path, json_: bool) -> None:
    from vlwm.commands.shared.output import emit_json

    if json_:
        emit_json({**values, "output": str(target)})
        return
    splits = ", ".join(f"{name} {count}" for name, count in values["splits"].items())
    sides = ", ".join(f"{n} {w:.0f} x {h:.0f} m" for n, (w, h) in values["inside_m"].items())
    print(
        f"Would make {values['sessions']} sessions of {values['frames']} frames "
        f"({', '.join(values['agents'])}; {splits}) in {target}, about "
        f"{values['bytes'] / 1e9:.2f} GB. Places: {sides}."
    )


def _show(report: PrepareReport, target: Path, json_: bool, config: str) -> None:
    from dataclasses import asdict

    from vlwm.commands.shared.output import emit_json, print_table

    if json_:
        emit_json({**asdict(report), "output": str(target)})
        return
    rows = [
        ["sessions", str(report.sessions)],
        ["frames", f"{report.frames} ({report.written} made now)"],
        ["occupied", f"{100 * report.occupied_share:.2f} % of all cells"],
        ["ground", f"{100 * report.ground_share:.1f} % of the occupied"],
        ["ground below the grid", f"{100 * report.ground_below_share:.1f} % of the columns"],
        ["rate", f"{report.frames_per_s:.1f} frames/s"],
        ["splits", ", ".join(f"{k} {v}" for k, v in report.splits.items())],
        ["attribution", report.attribution],
    ]
    print_table(f"Prepared {target}", ["what", "value"], rows)
    print(f"next: {_train_command(target, config)}")


def _train_command(target: str | Path, config: str) -> str:
    """Return the command that trains on these data: with their config, whose grid they have."""
    import shlex

    words = ["vlwm", "train", "--config", config, "--data", str(target)]
    from vlwm.core.config.load import load_config

    weights = load_config(config, (), lambda text: None).load_from
    if weights is not None and not Path(weights).exists():
        words.append("--from-scratch")
    return shlex.join(words)


@contextmanager
def frame_progress(total: int) -> Iterator[OnFrames]:
    """Show a bar with rate and ETA on a terminal; plain lines at a steady pace elsewhere."""
    if sys.stderr.isatty():
        with _bar(total) as report:
            yield report
    else:
        yield _Lines(total)


@contextmanager
def _bar(total: int) -> Iterator[OnFrames]:
    from rich import progress as bars

    from vlwm.commands.shared.output import console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console(stderr=True)) as live:
        task = live.add_task("planning routes", total=total, rate="")
        there: dict[str, int] = {}

        def report(session: str, done: int, frames: int) -> None:
            there[session] = done
            speed = live.tasks[task].speed
            rate = f"{speed:.0f} frames/s" if speed else ""
            made = sum(there.values())
            what = session if made < total else "packing and checking"
            live.update(task, completed=made, description=what, rate=rate)

        yield report


class _Lines:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, total: int, every_s: float = 10.0) -> None:
        import time

        from vlwm.commands.shared.output import note

        self.total, self.every_s = total, every_s
        self.started = self.last = time.monotonic()
        self.first: int | None = None
        self.there: dict[str, int] = {}
        note("planning routes ...")

    def __call__(self, session: str, done: int, frames: int) -> None:
        import time

        from vlwm.commands.shared.output import note

        self.there[session] = done
        now, made = time.monotonic(), sum(self.there.values())
        if self.first is None:  # frames of an earlier process do not count towards the rate
            self.first, self.started = made, now
        if made == self.total:
            note(f"{made} of {self.total} frames; packing and checking ...")
        elif now - self.last >= self.every_s:
            self.last = now
            rate = (made - self.first) / max(now - self.started, 1e-9)
            pace = ""
            if made > self.first:  # no rate or time until there is one
                pace = f", {rate:.2g}/s, {(self.total - made) / rate:.0f} s left"
            note(f"{session}: {made} of {self.total} frames{pace}")
