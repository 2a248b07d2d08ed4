"""`vlwm prepare`: city models into session folders, packed frames and splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from vlwm.commands.options import prepare as opt
from vlwm.commands.options import recordings as rec
from vlwm.commands.shared import recordings
from vlwm.commands.shared.frame_progress import frame_progress
from vlwm.commands.shared.prepare_output import (
    check_card,
    show_plan,
    show_prepared,
    show_store,
    write_card,
)
from vlwm.core.vocabulary import Agent

if TYPE_CHECKING:
    from vlwm.core.city.city import City
    from vlwm.core.city.tiling.tiled_city import TiledCity
    from vlwm.core.config.data_schema import PrepareConfig
    from vlwm.core.config.schema import Config
    from vlwm.core.data.generation.prepare import PrepareReport
    from vlwm.core.data.generation.session_plans import PreparePlan
    from vlwm.core.data.generation.store_prepare import StoreReport
    from vlwm.core.engines import Engine


# The signature is the table of options, and Typer reads nothing else: with it and the help text a
# command is longer than a function should be. What it does is one line an option group.
def prepare(
    input_: opt.Input = None,
    output: opt.Output = None,
    store: opt.Store = None,
    npz: opt.Npz = None,
    shard: opt.Shard = None,
    engine: opt.Engine = None,
    config: opt.Config = "finetune_tokyo",
    frames: opt.Frames = None,
    sessions: opt.Sessions = None,
    agents: opt.Agents = None,
    pattern: opt.Pattern = None,
    seed: opt.Seed = None,
    fill: opt.Fill = None,
    lidar: opt.Lidar = None,
    camera: opt.Camera = None,
    observe: opt.Observe = None,
    pose_noise: opt.PoseNoise = None,
    workers: opt.Workers = 0,
    area: opt.Area = None,
    up: opt.Up = None,
    scale: opt.Scale = None,
    strict: opt.Strict = False,
    set_: opt.Set = None,
    preview: opt.Preview = False,
    preview_file: opt.PreviewFile = None,
    card: opt.Card = False,
    dry_run: opt.DryRun = False,
    json_: opt.Json = False,
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
    from vlwm.commands.shared.city import read_input, tell_city
    from vlwm.commands.shared.output import note
    from vlwm.core.config.load import load_config
    from vlwm.core.data.generation.store_prepare import parse_share
    from vlwm.core.data.shards.packing import derived_folder
    from vlwm.core.geometry.mapped_arrays import Scratch
    from vlwm.core.hardware.host import usable_workers

    share = parse_share(shard)
    check_card(card, store)
    _check_store(store, shard or engine, output, preview or preview_file is not None)
    runner = _engine(engine, workers)
    resolved = load_config(config, set_ or (), note)
    processes = workers or usable_workers()
    target = output or Path(resolved.data_root)
    request = recordings.RecordingRequest(
        points=points, poses=poses, extrinsic=extrinsic, poses_of=poses_of, axes=axes,
        dataset=dataset, inputs=input_ or [], agent=agents, rate_hz=rate, window_s=window,
        lidar_delay_s=lidar_delay, keep_moving=keep_moving, topic_points=topic_points,
        topic_pose=topic_pose, body_frame=body_frame, lidar=bool(lidar), camera=bool(camera),
        strict=strict, json=json_, workers=processes, dry_run=dry_run,
        config=config, sets=tuple(set_ or ()),
    )  # fmt: skip
    if check is not None:
        recordings.check_sessions(check, resolved, strict=strict, json=json_)
        return
    recordings.refuse_strays(request)
    if request.asked:
        recordings.convert_recordings(request, resolved, target)
        return
    plan = _plan(
        resolved, frames=frames, sessions=sessions, agents=_agents(agents), fill=_fill(fill),
        patterns=_patterns(pattern), seed=seed, lidar=lidar, camera=camera, observe=observe,
        pose_noise=pose_noise, workers=processes,
    )  # fmt: skip
    drawn = preview_file or target / "preview.png" if preview or preview_file else None
    work = _Work(
        resolved, plan, target, store, share, runner, card, drawn, dry_run, json_, config,
        tuple(set_ or ()), store is None and _as_npz(npz, target, resolved, plan),
    )  # fmt: skip
    city: City | TiledCity | None = _stored_city(store, input_, area)
    if city is None:
        city = read_input(
            resolved, input_, plan.seed, strict, area,
            Scratch(None if dry_run or store else target), up, scale, plan.workers, runner,
            store if engine is not None and "://" in engine else None,
            None if store or dry_run else derived_folder(target) / "city",
        )  # fmt: skip
    tell_city(city)
    work.make(city)


@dataclass(frozen=True)
class _Work:
    """Makes the data of one command from a city.

    Attributes:
        config, plan: of the sessions.
        target: the folder, where no store takes its place.
        store: URL; None: the folder.
        share: sessions that this machine makes, part i of n; None: all.
        engine: runs them; None: the workers share frames.
        card: write a card of the data.
        preview: picture to draw; None: none.
        dry_run: show what would be made.
        json: report for machines.
        name, sets: the config and its changed keys as they were given.
        as_npz: write npz files into the folder.
    """

    config: Config
    plan: PreparePlan
    target: Path
    store: str | None
    share: tuple[int, int] | None
    engine: Engine | None
    card: bool
    preview: Path | None
    dry_run: bool
    json: bool
    name: str
    sets: tuple[str, ...]
    as_npz: bool

    def make(self, city: City | TiledCity) -> None:
        """Make the sessions that are missing, and report them."""
        from vlwm.core.city.city import City
        from vlwm.core.data.generation.prepare import outline

        config, plan, target = self.config, self.plan, self.target
        if self.dry_run:
            show_plan(outline(city, config, target, plan, npz=self.as_npz), target, self.json)
            return
        if self.as_npz and isinstance(city, City):
            prepared = _into_folder(city, config, plan, target, self.card, self.preview)
            show_prepared(prepared, target, self.json, self.name, self.sets)
            return
        if self.store is not None and isinstance(city, City):
            _keep_tiles(self.store, city)
        place = self.store or target.resolve().as_uri()
        done = _into_store(city, config, plan, place, self.share, self.engine, self.card)
        if self.preview is not None and isinstance(city, City):
            _draw_preview(city, config, target, self.preview)
        show_store(done, self.json, self.name, self.sets)


def _plan(
    config: Config,
    *,
    frames: int | None,
    sessions: int | None,
    agents: tuple[str, ...] | None,
    patterns: tuple[str, ...],
    seed: int | None,
    fill: str | None,
    lidar: bool | None,
    camera: bool | None,
    observe: str | None,
    pose_noise: str | None,
    workers: int,
) -> PreparePlan:
    """Return the plan of the config, with the options that were given in place of its values."""
    from vlwm.core.data.generation.session_plans import PreparePlan

    defaults = config.prepare
    seen = _observed(defaults, observe, pose_noise)
    return PreparePlan(
        frames=frames or defaults.frames,
        sessions=sessions or defaults.sessions,
        agents=agents or defaults.agents,
        patterns=patterns or defaults.patterns,
        seed=defaults.seed if seed is None else seed,
        held_out=defaults.held_out,
        fill=fill or defaults.fill,
        workers=workers,
        dt_s=config.frame_dt_s,
        lidar=defaults.lidar_model if _or(lidar, defaults.lidar) else None,
        camera=_or(camera, defaults.camera),
        observe=seen.observed_by,
        pose_noise=seen.pose_noise,
    )


def _into_store(
    city: City | TiledCity,
    config: Config,
    plan: PreparePlan,
    store: str,
    share: tuple[int, int] | None,
    engine: Engine | None,
    card: bool,
) -> StoreReport:
    """Make the sessions that a store lacks."""
    from vlwm.core.data.generation.store_prepare import prepare_store

    with frame_progress(plan.sessions * plan.frames) as report:
        done = prepare_store(city, config, store, plan, report, share=share, engine=engine)
    if card and done.finished:
        write_card(Path(unquote(store.removeprefix("file://"))))
    return done


def _into_folder(
    city: City, config: Config, plan: PreparePlan, target: Path, card: bool, preview: Path | None
) -> PrepareReport:
    """Make the sessions that a folder lacks, its card and its preview."""
    from vlwm.commands.shared.city import tell_report_file
    from vlwm.commands.shared.output import note
    from vlwm.core.data.generation.prepare import prepare as make
    from vlwm.core.folder_lock import folder_lock

    with (
        folder_lock(target, "vlwm prepare", note),
        frame_progress(plan.sessions * plan.frames) as report,
    ):
        done = make(city, config, target, plan, report)
    tell_report_file(city, target)
    if card:
        write_card(target)
    if preview is not None:
        _draw_preview(city, config, target, preview)
    return done


def _check_store(store: str | None, more: str | None, output: Path | None, drawn: bool) -> None:
    """Refuse options that do not go with --store, or that need it."""
    from vlwm.core.errors import UsageError
    from vlwm.core.store.objects import open_store

    if store is None:
        if more is not None:
            raise UsageError("--shard and --engine belong to --store", remedy="add --store URL")
        return
    if output is not None or drawn:
        raise UsageError(
            "--store takes the place of --output and draws no preview",
            remedy="leave out --output, --preview and --preview-file",
        )
    open_store(store)


def _as_npz(asked: bool | None, target: Path, config: Config, plan: PreparePlan) -> bool:
    """Return True where npz files are written, and say where the size alone decides against it."""
    from vlwm.commands.shared.output import note
    from vlwm.core.data.generation.prepare import bytes_needed, writes_npz
    from vlwm.core.geometry.grid import VoxelGrid

    grid = VoxelGrid.from_range(config.point_cloud_range, config.voxel_size)
    found = writes_npz(asked, target, grid, plan)
    if asked is None and not found:
        note(
            f"shards alone are written: npz files would take "
            f"{bytes_needed(grid, plan) / 1e9:.0f} GB; --npz writes them as well"
        )
    return found


def _engine(text: str | None, workers: int | None) -> Engine | None:
    """Return the engine of --engine; None without the option: the workers share frames."""
    from vlwm.core.engines import open_engine
    from vlwm.core.hardware.host import usable_workers

    if text is None:
        return None
    return open_engine(text, workers or usable_workers())


def _stored_city(
    store: str | None, inputs: list[Path] | None, area: str | None
) -> TiledCity | None:
    """Return the city whose tiles a store has, where no --input asks for other files."""
    from vlwm.commands.shared.output import note
    from vlwm.core.city.tiling.packing import INDEX
    from vlwm.core.city.tiling.tiled_city import TiledCity
    from vlwm.core.store.objects import open_store

    if store is None or inputs or area is not None or open_store(store).read(INDEX) is None:
        return None
    note(f"the city comes from its tiles in {store}")
    return TiledCity(open_store(store))


def _keep_tiles(store: str, city: City) -> None:
    """Write the tiles of a city that was read, for the other machines."""
    from vlwm.core.city.tiling.packing import INDEX
    from vlwm.core.city.tiling.tile_writer import write_tiles
    from vlwm.core.store.objects import open_store

    opened = open_store(store)
    if not city.procedural and opened.read(INDEX) is None:
        write_tiles(city, opened)


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
    from vlwm.core.config.data_schema import PATTERNS
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
