"""Numbers in few characters, and the characters a terminal can show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vlwm.core.monitoring.formatting import (
    ASCII,
    UNICODE,
    Glyphs,
    choose_glyphs,
    clean,
    gib,
    percent,
    short,
    size,
)
from vlwm.core.text import span

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0081234, "0.00812"), (3.14159, "3.14"), (12.345, "12.3"), (1234.4, "1234"),
     (1e-4, "1.0e-4"), (1.23e7, "1.2e7"), (-0.5, "-0.500"), (None, "-"), (float("nan"), "-")],
)  # fmt: skip
def test_short(value: float | None, text: str) -> None:
    assert short(value) == text


def test_units() -> None:
    assert [size(v) for v in (0, 999, 1500, 74.7e9, 3.2e12, None)] == [
        "0 B", "999 B", "1.5 kB", "74.7 GB", "3.2 TB", "-",
    ]  # fmt: skip
    assert [percent(v) for v in (0.0, 0.012, 0.0996, 0.97, None)] == [
        "0%", "1.2%", "10%", "97%", "-",
    ]  # fmt: skip
    assert gib(3 << 29) == "1.5" and gib(200 << 30) == "200" and gib(None) == "-"
    assert [span(v) for v in (4.4, 65, 1800, 11520, 400_000, None)] == [
        "4 s", "1 min 05 s", "30 min", "3 h 12 min", "4 d 15 h", "-",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "encoding", "glyphs"),
    [
        ({"LANG": "C.UTF-8"}, "utf-8", UNICODE),
        ({"LANG": "ja_JP.utf8"}, "UTF-8", UNICODE),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, "utf-8", ASCII),
        ({"LANG": "de_DE.ISO-8859-1"}, "utf-8", ASCII),
        ({"LANG": "C.UTF-8"}, "ascii", ASCII),
        ({}, "utf-8", UNICODE),
        ({"STY": "1.training"}, "utf-8", ASCII),
        ({}, None, ASCII),
    ],
)
def test_characters_of_the_terminal(
    environ: dict[str, str], encoding: str | None, glyphs: Glyphs
) -> None:
    assert choose_glyphs(environ, encoding) is glyphs


@pytest.mark.parametrize("where", [{}, {"TMUX": "x"}, {"STY": "1.training"}])
def test_a_locale_that_is_not_generated_counts_as_none(where: dict[str, str]) -> None:
    found = choose_glyphs({"LANG": "en_US.UTF-8", **where}, "utf-8", lambda name: False)
    assert found is (ASCII if where else UNICODE)
    assert choose_glyphs({"LANG": "C.UTF-8", "TERM": "vt100"}, "utf-8") is ASCII


@pytest.mark.parametrize(
    ("locale", "inside", "outside"),
    [("", "ascii", "unicode"), ("LANG=C", "ascii", "ascii"), ("LC_ALL=POSIX", "ascii", "ascii"),
     ("LANG=C.UTF-8", "unicode", "unicode"), ("LC_CTYPE=C.UTF-8", "unicode", "unicode"),
     ("LANG=xx_XX.UTF-8", "ascii", "unicode")],
)  # fmt: skip
def test_what_python_put_into_its_own_environment_is_not_believed(
    locale: str, inside: str, outside: str
) -> None:
    """CPython sets LC_CTYPE=C.UTF-8 where the locale is C (PEP 538)."""
    program = (
        "from vlwm.core.monitoring.formatting import terminal_glyphs\n"
        "print('ascii' if terminal_glyphs().ascii_only else 'unicode')"
    )
    for more, glyphs in (("TMUX=x", inside), ("A=b", outside)):
        words = [word for word in (locale, more) if word]
        command = ["env", "-i", f"PYTHONPATH={ROOT}", *words, sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == glyphs, (locale, more)


def test_text_of_a_run_cannot_draw_on_the_screen() -> None:
    assert "\x1b" not in clean("\x1b[31mred\x07\n東京") and "東京" in clean("東京")
    assert clean("\x1b東京", ASCII) == " ??"
