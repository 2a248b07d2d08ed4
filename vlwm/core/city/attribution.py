"""Attribution lines that must accompany everything made from a city."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlwm.core.city.crs import in_japan
from vlwm.core.city.readers.source_files import Source
from vlwm.core.text import safe_text

PLATEAU = "3D都市モデル（Project PLATEAU）{place}（国土交通省）, CC BY 4.0"
UNKNOWN = "source not stated"
_FOLDER = "plateau"


def attribution_of(
    used: Sequence[Source],
    inputs: Sequence[Path],
    name: str,
    middle: tuple[float, float],
    stated: Sequence[str],
    is_plateau: bool,
) -> str:
    """Return Project PLATEAU's line for its data, the line that other data state, or that none is.

    PLATEAU's data are in Japan, and have its official file names, its vocabulary (`uro`), or a
    folder named after it.

    Args:
        name: of the city, where no file names one.
        middle: latitude, longitude, degrees.
        stated: copyright lines of the files.
        is_plateau: a file uses PLATEAU's vocabulary.
    """
    folders = {part.lower() for path in inputs for part in path.absolute().parts}
    official = is_plateau or any(s.official for s in used) or _FOLDER in folders
    if official and in_japan(*middle):
        place = next((s.city for s in used if s.city), None) or name
        return PLATEAU.format(place=place)
    lines = list(dict.fromkeys(safe_text(s, 200) for s in stated if s))
    return "; ".join(lines[:3]) if lines else UNKNOWN
