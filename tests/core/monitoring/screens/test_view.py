"""Keys change the view, and no key leads out of the list of runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlwm.core.monitoring.screens.view import CHARTS, HELP, LINKS, LOG, MAIN, RUNS, ZOOM, View

KEYS = [*"?qpz/lsrc123459", "up", "down", "left", "right", "enter", "escape", "backspace", "x"]


def after(*keys: str, runs: int = 3) -> View:
    view = View()
    for key in keys:
        view = view.pressed(key, runs)
    return view


@given(st.lists(st.sampled_from(KEYS), max_size=30), st.integers(1, 4))
def test_every_view_can_be_drawn(keys: list[str], runs: int) -> None:
    view = after(*keys, runs=runs)
    assert 0 <= view.run < runs and 0 <= view.chart < len(CHARTS)


def test_the_screens() -> None:
    assert after("?").screen == HELP and after("?", "?").screen == MAIN
    assert after("l").screen == LOG and after("r").screen == RUNS
    assert after("z").screen == ZOOM and after("z", "z").chart == 1
    assert after("z", "escape").screen == MAIN
    assert after("w").screen == LINKS
    assert after("?", "down", "down").scroll == 2 and after("?", "up").scroll == 0
    assert after("l", "up").scroll == 1 and after("l", "up").run == 0
    assert after("?", "down", "l").scroll == 0
    assert after("q").left and after("p").paused and not after("p", "p").paused


def test_runs_are_chosen_by_digits_and_arrows() -> None:
    assert after("2").run == 1 and after("9").run == 0
    assert after("right", "right", "right").run == 0 and after("left").run == 2
    assert after("r", "down", "enter") == View(run=1)


def test_a_filter_takes_keys_as_text() -> None:
    view = after("/", "q", "p", "x", "backspace", "enter")
    assert view.pattern == "qp" and view.screen == LOG and not view.typing and not view.left
    assert after("/", "a", "escape").pattern == ""


def test_stages_go_round() -> None:
    assert [after(*"s" * n).stage for n in range(4)] == [None, "tokenizer", "world", None]
