from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlwm.core.errors import DataError
from vlwm.core.text import safe_lines, safe_text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("bldg_1", "bldg_1"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\nb\r\tc", "a\\x0ab\\x0d\\x09c"),
        ("千代田区 é", "千代田区 é"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_control_characters_become_escapes(raw: str, shown: str) -> None:
    assert safe_text(raw) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_comes_out_can_be_printed_on_one_line(raw: str) -> None:
    shown = safe_text(raw)
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & {chr(c) for c in (*range(32), *range(127, 160))}
    shown.encode("utf-8")


def test_a_long_text_is_cut_and_lines_are_kept() -> None:
    assert safe_text("x" * 1000, 10) == "x" * 9 + "…"
    assert safe_lines("a\x1b\nb") == "a\\x1b\nb"


def test_an_error_shows_the_text_of_others_safely() -> None:
    error = DataError("the object \x1b[2J is broken", where="a\x07.obj", remedy="vlwm\x9b")
    assert str(error) == "the object \\x1b[2J is broken (a\\x07.obj): vlwm\\x9b"
