"""Data that a run makes for itself: a procedural city, or with `--auto` city models that are there.

Everything else is a sentence with the command that provides it.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlwm.core.config.load import list_presets
from vlwm.core.config.schema import Config
from vlwm.core.data.packed_store import list_shards
from vlwm.core.data.splits import HELD_OUT, PLAN_FILE
from vlwm.core.errors import DataError
from vlwm.core.files import read_json
from vlwm.core.folder_lock import folder_lock
from vlwm.core.hardware.host import usable_workers

if TYPE_CHECKING:
    from vlwm.core.city.city import City
    from vlwm.core.data.generation.prepare import PreparePlan
    from vlwm.core.training.loop.task import Tick

log = logging.getLogger("vlwm.training")

OnFrames = Callable[[int, int], None]
"""Called with (frames prepared, frames in all)."""

_SETS = {"nuscenes": "nuScenes", "uavscenes": "UAVScenes"}
_MADE_UP = "or try a made-up city: --config test_local"


def refuse_what_is_missing(config: Config, *, raw_will_do: bool = False) -> None:
    """Raise an error that names the command to type where there is no session.

    Args:
        raw_will_do: city models suffice, since the run prepares them.

    Raises:
        DataError: the folder holds none, and nobody is going to make them.
    """
    for source in config.data.train:
        if not holds_sessions(Path(source.root)):
            raise DataError(
                "this source has no sessions to train on",
                where=source.root,
                remedy="vlwm prepare makes them; or take it out of data.train",
            )
    root = Path(config.data_root)
    if config.data.train or holds_sessions(root) or config.prepare.source == "procedural":
        return
    if config.dataset in _SETS:
        raise DataError(
            f"there are no sessions of {_SETS[config.dataset]} to train on",
            where=root,
            remedy=f"make them with: {_download_first(config.dataset)}vlwm prepare --dataset "
            f"{config.dataset} --input data/{config.dataset} {_output_words(config)}; "
            f"or give --data DIR, {_MADE_UP}",
        )
    raw = Path(config.prepare.input)
    there = holds_city_models(raw)
    if raw_will_do:
        if there:
            return
        raise DataError(
            f"there are no sessions to train on, and no city models in {raw} to make them from",
            where=root,
            remedy="vlwm download fetches Tokyo (2.1 GB) and the weights, then the same command "
            "again; or --data DIR; or a made-up city, with nothing to fetch: "
            "vlwm train --auto --config test_local",
        )
    first = "" if there else "vlwm download && "  # else the command would meet an empty folder
    raise DataError(
        "there are no sessions to train on",
        where=root,
        remedy=f"make them with: {first}vlwm prepare --input {shlex.quote(str(raw))} "
        f"{_output_words(config)}; or give --data DIR, {_MADE_UP}",
    )


def _download_first(dataset: str) -> str:
    return "" if Path("data", dataset).is_dir() else f"vlwm download --{dataset} && "


def _output_words(config: Config) -> str:
    """Return the options of `vlwm prepare` that make the data where the config looks for them."""
    named = f" --config {config.name}" if config.name in list_presets() else " and this --config"
    return f"--output {shlex.quote(config.data_root)}{named}"


def holds_sessions(root: Path) -> bool:
    """Return whether a data folder has a session: a folder or a shard."""
    return any(root.glob("*/occupancy")) or bool(list_shards(root))


def holds_city_models(folder: Path) -> bool:
    """Return whether `vlwm prepare` could read a folder."""
    from vlwm.core.city.readers.source_files import find_sources

    try:
        return bool(find_sources([folder])[0])
    except DataError:
        return False


def is_to_be_prepared(config: Config, *, from_raw: bool) -> bool:
    """Return whether a run first has to make its data, or to finish making it.

    Args:
        from_raw: city models may be prepared, not only a procedural city.
    """
    root = Path(config.data_root)
    if (root / "splits.json").exists():
        return False
    if config.prepare.source == "procedural":
        return True
    # a plan without splits.json: an earlier prepare was interrupted
    begun = (root / PLAN_FILE).exists()
    return (
        from_raw
        and (begun or not holds_sessions(root))
        and holds_city_models(Path(config.prepare.input))
    )


def prepare_data(config: Config, tick: Tick, on_frames: OnFrames | None = None) -> None:
    """Make the sessions of a config in its data folder, or resume making them.

    Args:
        on_frames: called with (frames, all) instead of `tick` after some frames.

    Raises:
        DataError: the city cannot be read, or is too small.
    """
    from vlwm.core.data.generation.prepare import prepare

    root = Path(config.data_root)
    city = _city(config, root)
    tick()
    plan = _plan(config, root)
    log.info(
        "preparing %d sessions of %d frames of %s in %s",
        plan.sessions, plan.frames, city.name, root,
    )  # fmt: skip
    with folder_lock(root, "vlwm train", log.warning):
        done_of: dict[str, int] = {}

        def count(session: str, done: int, _: int) -> None:
            done_of[session] = done
            if on_frames is None:
                tick()
            else:
                on_frames(sum(done_of.values()), plan.sessions * plan.frames)

        report = prepare(city, config, root, plan, count)
    log.info("prepared %d frames of %d sessions", report.frames, report.sessions)


def _city(config: Config, root: Path) -> City:
    from vlwm.core.city.procedural import procedural_city
    from vlwm.core.city.read import read_city
    from vlwm.core.geometry.mapped_arrays import Scratch
    from vlwm.core.parallel import default_workers

    wanted = config.prepare
    if wanted.source == "procedural":
        return procedural_city(wanted.procedural_size_m, wanted.seed)
    log.info("reading city models in %s", wanted.input)
    return read_city([Path(wanted.input)], scratch=Scratch(root), workers=default_workers())


def _plan(config: Config, root: Path) -> PreparePlan:
    """Return the config's plan, or the one that the folder was begun with."""
    from vlwm.core.data.generation.prepare import PreparePlan

    wanted = config.prepare
    # an interrupted prepare is finished with the plan that it began with
    begun = {}
    if wanted.source != "procedural" and (root / PLAN_FILE).exists():
        begun = read_json(root / PLAN_FILE)
    return PreparePlan(
        frames=begun.get("frames", wanted.frames),
        sessions=begun.get("sessions", wanted.sessions),
        agents=tuple(begun.get("agents", wanted.agents)),
        patterns=tuple(begun.get("patterns", ("random",) if begun else wanted.patterns)),
        seed=begun.get("seed", wanted.seed),
        fill=begun.get("fill", wanted.fill),
        workers=usable_workers(),
        dt_s=config.frame_dt_s,
        lidar=begun.get("lidar", wanted.lidar_model if wanted.lidar else None),
        camera=begun.get("camera", wanted.camera),
        observe=begun.get("observe", None if begun else wanted.observed_by),
        pose_noise=begun.get("pose_noise", "none" if begun else wanted.pose_noise),
        held_out=begun.get("held_out", HELD_OUT if begun else wanted.held_out),
    )
