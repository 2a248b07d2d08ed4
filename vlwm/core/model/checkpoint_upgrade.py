"""Read checkpoints of earlier formats: give their entries the names of today.

Version 1 named the parts of the world model differently, and version 2 the thresholds; the values
are the same. An optimizer
state knows parameters by number, so it needs no change. Add a step here whenever a module
attribute or a checkpoint key is renamed, and raise `checkpoint.VERSION`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from vlwm.core.vocabulary import Stage

_V = TypeVar("_V")

_PREFIXES = {
    "pose.wideness": "motion_head.spread_scale",
    "pose.": "motion_head.",
    "memory_net.": "refinement_net.",
    "fusion.": "memory.fusion.",
    "beyond.": "memory.extrapolation.",
}
"""version 1 to 2; the first that fits is taken"""
_NAMES = {"trust": "residual_weight"}


def name_of_today(name: str) -> str:
    """Return the name that a tensor of a world model has today."""
    for old, new in _PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return _NAMES.get(name, name)


def names_of_today(state: Mapping[str, _V]) -> dict[str, _V]:
    """Return a world model's state dict under the names of today."""
    return {name_of_today(name): value for name, value in state.items()}


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's content of any earlier version as today's version has it."""
    new = dict(content)
    if content["version"] < 2:
        _to_version_2(new)
    if content["version"] < 3:
        _to_version_3(new)
    return new


def _to_version_2(content: dict[str, Any]) -> None:
    if content["stage"] == Stage.WORLD:
        content["model"] = names_of_today(content.get("model", {}))
        content["fresh"] = [name_of_today(name) for name in content.get("fresh", ())]
    if content["stage"] == "opening":
        for name, prefix in (("motion", "pose."), ("fusion", "fusion.")):
            if name in content["courses"]:
                _rename_part(content["courses"][name], prefix)


def _to_version_3(content: dict[str, Any]) -> None:
    """Rename `cuts` to `thresholds`, for the model and for the baselines."""
    if "cuts" in content:
        content["thresholds"] = content.pop("cuts")
    if (baselines := content.get("baselines")) is not None and "cuts" in baselines:
        content["baselines"] = {**baselines, "thresholds": baselines["cuts"]}
        del content["baselines"]["cuts"]


def _rename_part(course: dict[str, Any], prefix: str) -> None:
    """Rename the module's tensors, whose names lack the prefix that they have in the whole."""
    new = name_of_today(prefix)
    course["module"] = {
        name_of_today(prefix + name).removeprefix(new): value
        for name, value in course["module"].items()
    }
