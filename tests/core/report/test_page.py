"""A page is one file that asks nobody for anything and escapes text of others."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np

from tests.core.report.pages import SHAPE, content, window
from tests.trained_run import ATTRIBUTION
from vlwm.core.report.page import render
from vlwm.core.report.svg import Chart, Line, ticks


class Reader(HTMLParser):
    """Elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_no_element_asks_the_network() -> None:
    page = render(content())
    for tag, attributes in Reader(page).found:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:"), (tag, value)
        assert "style" not in attributes and not any(a.startswith("on") for a in attributes)
    assert "url(" not in page and "@import" not in page


def test_the_policy_allows_this_script_and_style_alone() -> None:
    page = render(content())
    reader = Reader(page)
    policy = next(a["content"] for t, a in reader.found if t == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none';")
    executed = re.findall(r"<(script|style)>(.*?)</\1>", page, re.DOTALL)
    assert sorted(tag for tag, _ in executed) == ["script", "style"]
    for tag, text in executed:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_text_of_others_is_text() -> None:
    page = render(content())
    assert "<script>alert" not in page and "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page and ATTRIBUTION in page


def test_a_window_is_packed_without_loss() -> None:
    packed = json.loads(json.dumps(window().packed(SHAPE)))
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed["bits"])), np.uint8)
    frames = np.unpackbits(bits.reshape(-1, 16 * 16), axis=1, bitorder="little")
    frames = frames.reshape(-1, *SHAPE)
    np.testing.assert_array_equal(frames[:4], window().past)
    np.testing.assert_array_equal(frames[4:10], window().truth)
    np.testing.assert_array_equal(frames[10:16], window().forecasts["model"])


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(13.0, 871.0) == [200.0, 400.0, 600.0, 800.0]
    assert ticks(-0.03, 0.02) == [-0.03, -0.02, -0.01, 0.0, 0.01, 0.02]


def test_a_curve_is_drawn_where_its_numbers_are() -> None:
    line = Line("a", [(0.0, 0.0), (1.0, 1.0)], "#000", strong=True)
    svg = Chart("t", "x", "y", [line], (0.0, 1.0), x_range=(0.0, 1.0)).svg()
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    (x0, y0), (x1, y1) = places
    assert x0 < x1 and y0 > y1
    assert Chart("t", "x", "y", [Line("a", [], "#000")]).svg() == ""


def test_the_viewer_offers_the_forecasts_that_its_windows_hold() -> None:
    page = render(content(forecasts=("model", "planes_analogs")))
    values = [a.get("value") for tag, a in Reader(page).found if tag == "option"]
    assert {"model", "planes_analogs"} <= set(values) and "memory_baseline" not in values
