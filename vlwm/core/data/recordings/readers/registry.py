"""Open a data set by its name: the readers behind `vlwm prepare --dataset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from vlwm.core.data.recordings.recording import Recording
from vlwm.core.errors import DataError, UsageError, nearest

_READERS: Mapping[str, str] = {
    "rosbag": "bags.read_bags",
    "nuscenes": "nuscenes.read_nuscenes",
    "tartanair": "tartanair.read_tartanair",
    "uavscenes": "uavscenes.read_uavscenes",
    "kitti": "kitti.read_kitti",
    "midair": "midair.read_midair",
    "argoverse2": "argoverse2.read_argoverse2",
}
"""data set → module and function of its reader, imported when it is asked for"""

DATASETS = tuple(_READERS)
_ARCHIVES = ("uavscenes",)
"""data sets whose .zip is read member by member"""


def read_dataset(name: str, root: Path) -> list[Recording]:
    """Return the recordings of a data set in a folder.

    Raises:
        UsageError: the name is unknown.
        DataError: the folder is missing or has another layout.
    """
    place = _READERS.get(name)
    if place is None:
        guess = nearest(name, DATASETS)
        hint = f"did you mean {guess}? " if guess else ""
        raise UsageError(
            f"--dataset {name} is unknown", remedy=f"{hint}use one of {', '.join(DATASETS)}"
        )
    if not root.exists():
        raise DataError("no such folder", where=root, remedy="check --input")
    if root.suffix.lower() == ".zip" and name not in _ARCHIVES:
        raise DataError(
            f"{name} is read from a folder", where=root, remedy="unpack the archive first"
        )
    module, function = place.split(".")
    reader: Callable[[Path], list[Recording]] = getattr(
        import_module(f"vlwm.core.data.recordings.readers.{module}"), function
    )
    return reader(root)
