"""Numbers, times and sizes as short words, and the characters a terminal can show."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlwm.core.locale_names import LOCALE_NAMES, is_utf8, locale_exists, original_locale


@dataclass(frozen=True)
class Glyphs:
    """Characters other than letters and digits; two sets, for UTF-8 and for everything else."""

    ascii_only: bool
    good: str
    warn: str
    bad: str
    live: str
    pause: str
    wait: str
    dot: str
    dash: str
    arrow: str
    degree: str
    up: str
    down: str


UNICODE = Glyphs(False, "✔", "▲", "✘", "●", "■", "○", "·", "–", "→", "°", "▴", "▾")
ASCII = Glyphs(True, "ok", "!", "x", "*", "#", "o", "|", "-", "->", " ", "^", "v")


def choose_glyphs(
    environ: Mapping[str, str], encoding: str | None, exists: Callable[[str], bool] = bool
) -> Glyphs:
    """Return the set that this terminal shows.

    The first of LC_ALL, LC_CTYPE and LANG that is set decides. A locale that is not generated
    counts as none. A rented machine often sets none, and the terminal in front of it uses UTF-8;
    inside screen or tmux, which then do not pass UTF-8 on, it is ASCII.

    Args:
        environ: the environment that the process was started with (`original_locale`).
        encoding: of stdout.
        exists: True for a locale that the system has generated.
    """
    if not (encoding or "").lower().replace("-", "").startswith("utf8"):
        return ASCII
    if environ.get("TERM") in _OLD_TERMINALS:
        return ASCII
    named = next((v for n in LOCALE_NAMES if (v := environ.get(n))), None)
    if named is None or not exists(named):
        return ASCII if environ.get("TMUX") or environ.get("STY") else UNICODE
    return UNICODE if is_utf8(named) else ASCII


_OLD_TERMINALS = ("vt52", "vt100", "vt102", "vt220", "ansi")


def terminal_glyphs() -> Glyphs:
    """Return the set for this process's stdout."""
    encoding = getattr(sys.stdout, "encoding", None)
    return choose_glyphs(original_locale(os.environ), encoding, locale_exists)


def clean(text: str, glyphs: Glyphs = UNICODE) -> str:
    """Return text from a file made safe for a terminal: no control characters, one line."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    if not glyphs.ascii_only:
        return plain
    return plain.translate(_PLAIN).encode("ascii", "replace").decode()


_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "…": "...", "→": "->", "·": "|", "×": "x", "’": "'", "°": " "}
)
"""substitutes for characters of our own messages where only ASCII is shown"""


def short(value: float | None, digits: int = 3, none: str = "-") -> str:
    """Return a number in few characters: 0.00812, 3.14, 1234, 1.2e-06."""
    if value is None or not math.isfinite(value):
        return none
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{places}f}"
    mantissa, _, exponent = f"{value:.{max(digits - 2, 0)}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def percent(share: float | None, none: str = "-") -> str:
    """Return a share in percent; one place below 10 %."""
    if share is None or not math.isfinite(share):
        return none
    value = 100.0 * share
    return f"{value:.1f}%" if 0 < abs(value) < 9.95 else f"{value:.0f}%"


def size(value: float | None, none: str = "-") -> str:
    """Return bytes in decimal units, as disks and `ls -h --si` count."""
    if value is None:
        return none
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.3g} {unit}"
        value /= 1000.0
    return f"{value:.3g} TB"


def gib(value: float | None, none: str = "-") -> str:
    """Return bytes in GiB without the unit, as memory is counted."""
    if value is None:
        return none
    amount = value / (1 << 30)
    return f"{amount:.1f}" if amount < 99.95 else f"{amount:.0f}"
