"""Tables for people: numbers are whole in a narrow terminal, names take more lines."""

from __future__ import annotations

import pytest

from vlwm.commands.shared.output import print_table


@pytest.mark.parametrize("columns", [50, 60, 80])
def test_numbers_are_never_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    numbers = [f"-0.0{n}4" for n in range(1, 5)]
    rows = [["/data/runs/tokyo_small less /data/runs/another", *numbers], ["model"]]
    print_table("12 windows", ["run", "1 s", "2 s", "3 s", "4 s"], rows)
    lines = capsys.readouterr().out.splitlines()
    assert all(number in "\n".join(lines) for number in numbers)
    assert "…" not in "".join(lines) and max(map(len, lines)) <= columns
    left = "".join(line[: line.find("  ", 2)].strip() for line in lines)
    assert "another" in left


def test_a_long_value_wraps_beside_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_table("Prepared", ["what", "value"], [["attribution", "words " * 20]])
    out = capsys.readouterr().out
    assert out.count("words") == 20 and "…" not in out
