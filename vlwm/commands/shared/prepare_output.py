"""Print what `vlwm prepare` would make or has made, the command that trains on it, and the card."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlwm.commands.shared.output import emit_json, note, print_table, warn

_PRESET = "finetune_tokyo"
"""the one that the commands take without --config"""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlwm.core.data.generation.prepare import PrepareReport
    from vlwm.core.data.generation.store_prepare import StoreReport


def show_plan(values: dict[str, Any], target: Path, json_: bool) -> None:
    """Print the outline of a plan."""
    if json_:
        emit_json({**values, "output": str(target)})
        return
    splits = ", ".join(f"{name} {count}" for name, count in values["splits"].items())
    counts = values["regions"]
    sides = ", ".join(
        f"{n} {w:.0f} x {h:.0f} m{_largest_of(counts[n])}"
        for n, (w, h) in values["inside_m"].items()
    )
    print(
        f"Would make {values['sessions']} sessions of {values['frames']} frames "
        f"({', '.join(values['agents'])}; {splits}) in {target}, about "
        f"{values['bytes'] / 1e9:.2f} GB. Places: {sides}."
    )


def show_prepared(
    report: PrepareReport, target: Path, json_: bool, config: str, sets: Sequence[str] = ()
) -> None:
    """Print what a data folder holds, and the next command."""
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
    print(f"next: {train_command(target, config, sets)}")


def show_store(report: StoreReport, json_: bool, config: str, sets: Sequence[str] = ()) -> None:
    """Print what this machine put into a store, and the next command when it is complete."""
    for name in report.different:
        warn(
            f"{name} in the store differs from what this machine makes: the one in the store "
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
        print(f"next: {train_command(report.store, config, sets)}")


def train_command(data: str | Path, config: str, sets: Sequence[str] = ()) -> str:
    """Return the command that trains on prepared data: with their config, whose grid they have.

    It works in any folder: paths are absolute, and where the config's weights are named relatively,
    a `cd` comes first.

    Args:
        sets: values of --set that the data were prepared with.
    """
    from vlwm.core.config.load import load_config
    from vlwm.core.store.objects import is_url
    from vlwm.core.training.options import from_here

    weights = load_config(config, sets, lambda text: None).load_from
    if Path(config).suffix and Path(config).exists():
        config = str(Path(config).absolute())
    place = str(data) if is_url(data) else str(Path(data).absolute())
    given = [word for pair in sets for word in ("--set", pair)]
    text = shlex.join(["vlwm", "train", "--config", config, "--data", place, *given])
    if weights is None:
        return text
    if not Path(weights).exists():
        return f"{text} --from-scratch"
    return text if Path(weights).is_absolute() else from_here() + text


def config_of(folder: Path) -> str:
    """Return the first preset whose data have the grid, time step and layers of a data folder."""
    from vlwm.core.config.load import list_presets, load_config
    from vlwm.core.data.generation.session_plans import grid_values
    from vlwm.core.data.splits import PLAN_FILE
    from vlwm.core.files import read_json
    from vlwm.core.geometry.grid import VoxelGrid

    plan = read_json(folder / PLAN_FILE) if (folder / PLAN_FILE).is_file() else None
    made = plan if isinstance(plan, dict) else {}
    for name in (_PRESET, *list_presets()):
        config = load_config(name, (), lambda text: None)
        values = grid_values(VoxelGrid.from_range(config.point_cloud_range, config.voxel_size))
        grid = {key: list(value) for key, value in values.items()}
        observed = bool(made.get("observe")) == (config.prepare.observed_by is not None)
        if made.get("grid") == grid and made.get("dt_s") == config.frame_dt_s and observed:
            return name
    return _PRESET


def check_card(card: bool, store: str | None) -> None:
    """Refuse a card for a store that is not a folder of this machine."""
    from vlwm.core.errors import UsageError

    if card and store is not None and not store.startswith("file://"):
        raise UsageError(
            "--card writes into a folder of this machine", where=store,
            remedy="use --store file:///FOLDER, then upload the folder",
        )  # fmt: skip


def write_card(folder: Path) -> None:
    """Write the card and say how the folder gets onto the Hub."""
    from vlwm.core.export.dataset_card import write_dataset_card

    note(f"written: {write_dataset_card(folder)}")
    place = shlex.quote(str(folder.absolute()))
    note(f"to publish: hf upload --repo-type dataset user/name {place} . --exclude '.packed/*'")


def _largest_of(regions: int) -> str:
    """Return the words behind the sides of a region, where a split has several."""
    return f" (the largest of {regions})" if regions > 1 else ""
