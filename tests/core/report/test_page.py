"""A page is one file that asks nobody for anything and escapes text of others."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.core.report.pages import SHAPE, content, window
from tests.trained_run import ATTRIBUTION, score_sheet, write_trained_run
from vlwm.core.data.splits import Region, Splits
from vlwm.core.report.city_map import Track, map_legend, map_svg
from vlwm.core.report.film import page_film
from vlwm.core.report.page import render
from vlwm.core.report.run_report import write_run_report
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


def test_names_of_runs_configs_and_cities_are_text(tmp_path: Path) -> None:
    bad = '</script><script>alert(1)</script><img src=x onerror="alert(2)">$grid'
    run = tmp_path / "a <b> & </style>"
    write_trained_run(run)
    (run / "config.json").write_text(json.dumps({"name": bad, "load_from": bad, "max_epochs": bad}))
    splits = Splits(bad, 1.0, (Region(bad, 0.0, 0.0, 9.0, 9.0),))
    track = Track(bad, bad, np.array([[0.0, 0.0], [1.0, 2.0]]))
    city = (map_svg(splits, [track]), map_legend([track]))
    sheet = {**score_sheet(f"3D都市モデル{bad}"), "checkpoint": bad}
    sheet |= {
        "data": {"root": bad, "hash": bad},
        "differences": {},
        "zones": {"all": {"frames_without_occupied_cells": []}},
    }
    page = write_run_report(tmp_path / "one", sheet, run=run, command=bad).read_text("utf-8")
    for text in (page, render(content(city=city, lead=[bad], facts=[(bad, bad)]))):
        tags = Reader(text).found
        assert "alert(1)" in text and all(a.get("src") != "x" for _, a in tags)
        assert sum(tag == "script" and not a for tag, a in tags) <= 1  # the viewer's
        assert not any(name.startswith("on") for _, a in tags for name in a)
    assert "3D都市モデル" in page


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


@pytest.mark.parametrize(("mb_each", "windows"), [(0.2, 3), (0.78, 1), (1.2, 0)])
def test_a_page_takes_the_film_of_as_many_windows_as_fit(
    mb_each: float, windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real window of lidar frames takes 0.78 MB."""

    def write(path: Path, _: object, windows: int) -> None:
        path.write_bytes(bytes(round(1e6 * mb_each) * windows))

    monkeypatch.setattr("vlwm.core.report.film.write_film", write)
    found = page_film(SimpleNamespace())  # type: ignore[arg-type]  # only handed on
    assert len(found or b"") == round(1e6 * mb_each) * windows
