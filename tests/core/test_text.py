from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlwm.core.errors import DataError
from vlwm.core.text import plain_reason, safe_lines, safe_text


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


_ODD: list[Any] = [None, 1, "x", [], {}, [[]], [1, 2], "²", "1e999", "\ud800", 2**70, float("nan")]
_USES: list[Callable[[Any], object]] = [
    lambda v: v.get("a"), lambda v: v["root"], lambda v: v[3], lambda v: float(v), lambda v: int(v),
    lambda v: [(a, b, c) for a, b, c in [v]], lambda v: np.array(v, dtype=float).reshape(4, 4),
    lambda v: v.encode(), lambda v: json.loads(v), lambda v: np.stack(v), lambda v: len(v) + v,
    lambda v: np.array([[1.0], v], dtype=np.float64), lambda v: sorted(v)[0],
    lambda v: dict(v, a=1), lambda v: v + 1 + "a",
]  # fmt: skip
_PYTHON = re.compile(
    r"object|attribute|subscript|NoneType|argument|literal|codec|iterable|unpack|reshape|operand|"
    r"\bstr\b|\bint\b|\bdict\b|array|indices"
)


def test_reasons_do_not_speak_python() -> None:
    told = set()
    for use in _USES:
        for value in _ODD:
            try:
                use(value)
            except Exception as error:  # noqa: BLE001 - whatever Python raises
                told.add(plain_reason(error))
    assert len(told) > 8 and not [t for t in told if _PYTHON.search(t)], told
    assert plain_reason(KeyError("root")) == "'root' is missing"
    with pytest.raises(ValueError) as caught:
        float("²")
    assert plain_reason(caught.value) == "'²' is not a number"
