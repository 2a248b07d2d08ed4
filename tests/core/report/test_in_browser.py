"""The page in a real browser: silent console, no request, viewer, phone, print, no WebGL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.chromium import Page, chromium, find_chromium
from tests.core.report.pages import content
from tests.core.report.test_comparison import run as compared
from vlwm.core.report.comparison import comparison
from vlwm.core.report.page import render
from vlwm.core.report.run_report import write_comparison_report

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(find_chromium() is None, reason="needs a chromium on the PATH"),
]
READY = "document.querySelector('#viewer').dataset.ready === 'yes'"
COUNTS = "document.querySelector('#v-counts').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(content()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as found:
        yield found


def colours(picture: bytes) -> int:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    return len(np.unique(image.reshape(-1, 3), axis=0))


def test_nothing_is_said_or_asked(page: Path, browser: Page) -> None:
    browser.heard.clear()
    browser.open(page, 1280, 900)
    browser.wait(READY)
    loud = [line for line in browser.heard if line[0] != "request"]
    asked = {url.split(":")[0] for kind, url in browser.heard if kind == "request"}
    assert loud == [] and asked <= {"file", "data"}
    assert sum(url.startswith("file:") for _, url in browser.heard) == 1


def test_the_viewer_counts_what_it_draws(page: Path, browser: Page, tmp_path: Path) -> None:
    browser.open(page, 1280, 900)
    browser.wait(READY)
    browser.ask("document.querySelector('canvas').focus({preventScroll: false})")
    truth = 16 * 16 + 16 * 5 + 16 * 3
    browser.press("1")
    assert browser.ask(COUNTS) == f"{truth} occupied cells"
    browser.press("3")
    moved = 16 * 3
    assert browser.ask(COUNTS) == f"{truth - moved} agreed, {moved} missed, {moved} false"
    before = browser.shot(tmp_path / "before.png")
    browser.press("ArrowLeft", "ArrowLeft", "-")
    browser.ask("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert browser.shot(tmp_path / "after.png") != before and colours(before) > 20
    browser.press(",", ",", ",", ",", ",")
    assert "past" in browser.ask("document.querySelector('#v-label').textContent")


def test_a_phone_needs_no_sideways_scroll(page: Path, browser: Page, tmp_path: Path) -> None:
    browser.open(page, 390, 844, mobile=True)
    browser.wait(READY)
    assert browser.ask("document.documentElement.scrollWidth") == 390
    assert colours(browser.shot(tmp_path / "phone.png")) > 20


def test_a_comparison_of_long_names_fits_a_phone(browser: Page, tmp_path: Path) -> None:
    runs = [compared("runs/" + "tokyo_small_" * n, n) for n in (2, 6)]
    path = write_comparison_report(tmp_path, comparison(runs, [0.5, 1.0]))
    browser.heard.clear()
    browser.open(path, 390, 844, mobile=True)
    assert browser.ask("document.documentElement.scrollWidth") == 390
    assert [line for line in browser.heard if line[0] != "request"] == []
    table = "document.querySelector('td:nth-child(2)').getBoundingClientRect().left"
    assert browser.ask(table) < 300  # numbers begin where they can be seen


def test_fingers_turn_and_zoom(page: Path, browser: Page, tmp_path: Path) -> None:
    browser.open(page, 390, 844, mobile=True)
    browser.wait(READY)
    browser.ask("document.querySelector('canvas').scrollIntoView({block: 'center'})")
    x, y = (browser.ask(f"(r => r.{side} + r.{size} / 2)"
                        "(document.querySelector('canvas').getBoundingClientRect())")
            for side, size in (("left", "width"), ("top", "height")))  # fmt: skip

    def touch(*moves: list[tuple[float, float]]) -> None:
        for kind, points in zip(("touchStart", *["touchMove"] * len(moves)), moves, strict=False):
            where = [{"x": x + a, "y": y + b, "id": n} for n, (a, b) in enumerate(points)]
            browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=where)
        browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        browser.ask("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")

    seen = [browser.shot(tmp_path / "still.png")]
    touch([(0, 0)], [(60, 10)])
    seen.append(browser.shot(tmp_path / "turned.png"))
    touch([(-20, 0), (20, 0)], [(-90, 0), (90, 0)])
    seen.append(browser.shot(tmp_path / "pinched.png"))
    assert len(set(seen)) == 3


def test_paper_gets_pictures(page: Path, browser: Page) -> None:
    browser.open(page, 1280, 900)
    browser.wait(READY)
    browser.call("Emulation.setEmulatedMedia", media="print")
    shown = "getComputedStyle(document.querySelector('{}')).display"
    assert browser.ask(shown.format(".stage")) == "none"
    assert browser.ask(shown.format(".still")) == "block"
    browser.call("Emulation.setEmulatedMedia", media="")
    assert browser.ask(shown.format(".still")) == "none"


def test_without_webgl_a_picture_stands_in(page: Path) -> None:
    with chromium(webgl=False) as browser:
        browser.open(page, 1280, 900)
        assert browser.ask("getComputedStyle(document.querySelector('.stage')).display") == "none"
        assert browser.ask("document.querySelector('.still img').naturalWidth") == 60
        assert [line for line in browser.heard if line[0] != "request"] == []
