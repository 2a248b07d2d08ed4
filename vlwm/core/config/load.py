"""Load a config: a preset by name or a users' file by path, with `--set key=value` overrides.

The resolved config is plain JSON: it is stored in the run folder and in every checkpoint, and
`config_from_dict` reads it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vlwm.core.config.aliases import KeyReport, apply_overrides, to_vlwm_keys
from vlwm.core.config.config_file import read_config_file, resolve_config_path
from vlwm.core.config.from_dict import build
from vlwm.core.config.schema import Config


def config_from_dict(values: Mapping[str, Any], *, where: str = "config") -> Config:
    """Build a Config from plain values; unknown keys and wrong types are named.

    Raises:
        ConfigError: an unknown key (with the nearest known one) or a value of the wrong type.
    """
    built: Config = build(Config, values, "", where)
    return built


def list_presets() -> list[str]:
    """Return names of the presets that ship with the package."""
    folder = Path(__file__).parents[2] / "configs"
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def load_config(
    name_or_path: str | Path,
    overrides: Iterable[str] = (),
    on_note: Callable[[str], None] | None = None,
) -> Config:
    """Return the resolved config of a preset (name) or a user's file (path), with overrides.

    Args:
        name_or_path: 'finetune_tokyo', 'config/finetune_tokyo.py' or a path to any such file;
            a path that is absent falls back to the preset of that stem.
        overrides: `key=value` pairs as given to `--set`, such as 'optimizer.lr=5e-5'.
        on_note: called with one line about a fallback, mapped keys, or keys without effect.

    Raises:
        ConfigError: no such preset (with the nearest one), a bad file, key or value.
    """
    path = resolve_config_path(name_or_path, list_presets())
    file = read_config_file(path)
    report = to_vlwm_keys(file.values, where=str(path), helpers=file.helpers)
    values = {"name": path.stem, **report.values}
    config = config_from_dict(apply_overrides(values, overrides), where=str(path))
    for line in _notes(name_or_path, path, report):
        if on_note is not None:
            on_note(line)
    return config


def _notes(wanted: str | Path, path: Path, report: KeyReport) -> Iterable[str]:
    if Path(wanted).suffix and Path(wanted) != path:
        yield f"{wanted} does not exist; the preset {path.stem} is used"
    if report.mapped:
        yield "config: " + ", ".join(f"{a} is read as {b}" for a, b in report.mapped)
    if report.ignored:
        yield f"config: without effect in vlwm: {', '.join(report.ignored)}"
