"""Text of the figures: Japanese is written, nothing is dropped or rewritten."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trained_run import ATTRIBUTION
from vlwm.core.figures.canvas import blank, text
from vlwm.core.figures.lettering import _characters, text_width, writable


def ink(words: str, **more: object) -> np.ndarray:
    image = blank(40, 900)
    text(image, words, (10, 28), size=0.6, **more)
    return image < 128


def test_the_attribution_stands_in_japanese() -> None:
    assert writable(ATTRIBUTION) == ATTRIBUTION
    assert not np.array_equal(ink("国土交通省"), ink("国土地理院"))
    assert ink("省").sum() > 2 * ink("一").sum() > 0


def test_what_pages_and_cities_need_is_in_the_font() -> None:
    wanted = (
        "東京都渋谷区大阪市名古屋札幌横浜神戸京都福岡広島仙台松本沼津静岡ひらがなカタカナ×–°²µα"
    )
    assert {ord(c) for c in wanted} <= _characters()


def test_a_character_that_is_missing_is_named() -> None:
    assert writable("a\U0001f600b\x1b") == "a[U+1F600]b\\x1b"


@pytest.mark.parametrize("anchor", ["left", "centre", "right"])
def test_a_line_is_as_wide_as_it_says(anchor: str) -> None:
    words = "IoU 0.93, 3D都市モデル"
    image = blank(60, 900)
    text(image, words, (450, 30), size=0.7, anchor=anchor)
    columns = np.flatnonzero((image < 200).any(axis=(0, 2)))
    width = text_width(words, 0.7)
    left = 450 - {"left": 0, "centre": width // 2, "right": width}[anchor]
    assert left - 2 <= columns[0] and columns[-1] <= left + width + 2
    assert columns[-1] - columns[0] > 0.93 * width


def test_bold_is_bolder() -> None:
    assert ink("Reliability", bold=True).sum() > 1.15 * ink("Reliability").sum()
