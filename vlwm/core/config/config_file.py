"""Find config files, read them with the files that they inherit from.

A file inherits the values of its `_base_` files, later ones over earlier ones, and its own values
over them. `safe_eval` evaluates each file as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlwm.core.config.safe_eval import Evaluator
from vlwm.core.errors import ConfigError, nearest
from vlwm.core.text import safe_text

_PRESETS = Path(__file__).parents[2] / "configs"


def resolve_config_path(name_or_path: str | Path, presets: Sequence[str]) -> Path:
    """Return the file that a name or path means: itself, or the preset of that stem.

    Raises:
        ConfigError: neither exists; the nearest preset is named.
    """
    wanted = Path(name_or_path)
    if wanted.suffix == ".py" and wanted.is_file():
        return wanted
    if wanted.stem in presets:
        return _PRESETS / f"{wanted.stem}.py"
    close = nearest(wanted.stem, presets)
    guess = f"did you mean {close}? " if close else ""
    raise ConfigError(
        "no such config file or preset",
        where=str(name_or_path),
        remedy=f"{guess}presets are {', '.join(presets)}",
    )


@dataclass(frozen=True)
class ConfigFile:
    """A file's public names with their values, `_base_` files merged below them."""

    values: dict[str, Any] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()
    """names that other lines of the file read: they may serve the file alone"""


def read_config_file(path: str | Path) -> ConfigFile:
    """Evaluate a config file and its `_base_` files as data.

    Raises:
        ConfigError: the file cannot be read, or a line is more than data.
    """
    return _read(Path(path), ())


def _read(path: Path, above: tuple[Path, ...]) -> ConfigFile:
    if path.resolve() in above:
        raise ConfigError(
            "_base_ files include each other in a loop", where=path, remedy="remove one _base_ line"
        )
    evaluator = Evaluator(path)
    names = evaluator.run()
    bases = names.pop("_base_", [])
    merged = ConfigFile()
    if not isinstance(bases, (str, list, tuple)) or not all(isinstance(b, str) for b in bases):
        raise ConfigError(
            "_base_ is neither a file name nor a list of them",
            where=path,
            remedy='write it as _base_ = "finetune_tokyo.py"',
        )
    for base in [bases] if isinstance(bases, str) else bases:
        below = _read(_find_base(path, str(base)), (*above, path.resolve()))
        values = merge(merged.values, below.values)
        merged = ConfigFile(values, merged.helpers | below.helpers)
    own = {k: v for k, v in names.items() if not k.startswith("_")}
    return ConfigFile(merge(merged.values, own), merged.helpers | frozenset(evaluator.read))


def _find_base(path: Path, base: str) -> Path:
    for candidate in (path.parent / base, _PRESETS / Path(base).name):
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # a name that no file can have
            break
    raise ConfigError(
        f"no such _base_ file: {safe_text(base)!r}", where=path, remedy="fix the path"
    )


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `above` over `below`, dicts key by key; `_delete_=True` replaces a dict."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not value.get("_delete_"):
            merged[key] = merge(old, value)
        elif isinstance(value, Mapping):
            merged[key] = {k: v for k, v in value.items() if k != "_delete_"}
        else:
            merged[key] = value
    return merged
