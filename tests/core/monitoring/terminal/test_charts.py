"""Characters that stand for numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlwm.core.monitoring.terminal.charts import Scale, bar, binned, line_chart, scale_of, sparkline

NAN = float("nan")
FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def drawn(chart: object) -> list[str]:
    return ["".join(cell.char for cell in row) for row in chart.rows]


def test_sparkline_goes_from_lowest_to_highest() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([8, 1], 8, ascii_only=True) == "@."
    assert sparkline([3, 3, 3], 5) == "▄▄▄"
    assert sparkline([NAN, 1.0, math.inf, 2.0], 9) == "▁█"
    assert sparkline([], 5) == sparkline([NAN], 5) == sparkline([1.0], 0) == ""
    assert len(sparkline(list(range(1000)), 12)) == 12


@pytest.mark.parametrize(
    ("share", "filled", "rest"),
    [(0.0, "", 8), (0.5, "████", 4), (1.0, "████████", 0), (2.0, "████████", 0),
     (1 / 64, "▏", 7), (None, "", 8), (NAN, "", 8), (-1.0, "", 8)],
)  # fmt: skip
def test_bars_fill_by_eighths(share: float | None, filled: str, rest: int) -> None:
    assert bar(share, 8) == (filled, " " * rest)


def test_ascii_bar() -> None:
    assert bar(0.5, 8, ascii_only=True) == ("####", "----")


def test_a_rising_line_rises() -> None:
    chart = line_chart([[(x, x) for x in range(100)]], 10, 5, ascii_only=True)
    assert drawn(chart)[0].endswith("*") and drawn(chart)[-1].startswith("*")
    assert all(len(row) == 10 for row in drawn(chart))
    assert (chart.x.low, chart.x.high) == (0, 99)


def test_braille_dots_stand_where_they_should() -> None:
    assert drawn(line_chart([[(0, 1.0), (1, 0.0)]], 1, 1, log=False)) == ["⢣"]


def test_series_differ_without_colour() -> None:
    flat = [[(x, 1.0) for x in range(100)], [(x, 2.0) for x in range(100)]]
    rows = [row for row in drawn(line_chart(flat, 20, 4)) if row.strip()]
    assert " " in rows[0] and " " not in rows[1]
    rows = [row for row in drawn(line_chart(flat, 20, 4, ascii_only=True)) if row.strip()]
    assert set(rows[0]) == {"o"} and set(rows[1]) == {"*"}
    assert {cell.series for row in line_chart(flat, 20, 4).rows for cell in row} == {0, 1, None}


def test_decades_are_drawn_on_a_log_scale() -> None:
    assert scale_of([1e-3, 1.0]).log and not scale_of([0.5, 1.0]).log
    assert not scale_of([-1.0, 100.0]).log
    scale = Scale(0.01, 100.0, True)
    assert scale.place(1.0) == pytest.approx(0.5) and scale.at(0.5) == pytest.approx(1.0)


def test_flat_and_empty_series_have_a_scale() -> None:
    for values in ([], [NAN], [5.0], [0.0], [-3.0, -3.0]):
        scale = scale_of(values)
        assert scale.high > scale.low


def test_bins_average_and_keep_gaps() -> None:
    points = [(0.0, 1.0), (0.1, 3.0), (9.9, 5.0), (5.0, NAN)]
    assert binned(points, Scale(0.0, 10.0), 4) == [2.0, None, None, 5.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=30), st.booleans(), st.integers(1, 30))
def test_any_numbers_are_drawn(points: list[tuple[float, float]], plain: bool, width: int) -> None:
    chart = line_chart([sorted(points, key=lambda p: str(p[0]))], width, 4, ascii_only=plain)
    assert [len(row) for row in chart.rows] == [width] * 4
