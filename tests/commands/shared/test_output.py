"""Tables for people: numbers are whole in a narrow terminal, names take more lines."""

from __future__ import annotations

import io
import json
import re
import sys
from itertools import count
from types import SimpleNamespace

import pytest

from vlwm.commands.shared import download_output, frame_progress
from vlwm.commands.shared.output import emit_json, print_table


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


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_whole_whatever_stdout_can_show(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    emit_json({"city": "千代田", "odd": "\ud800"})
    assert json.loads(raw.getvalue().decode(encoding)) == {"city": "千代田", "odd": "\ud800"}


def test_plain_lines_of_frames_and_bytes_say_when_they_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And none says a rate or a time before there is one."""
    for module, made in (
        (frame_progress, frame_progress.LineProgress),
        (download_output, download_output.LineProgress),
    ):
        ticks = count(0.0, 5.0)
        clock = SimpleNamespace(monotonic=lambda ticks=ticks: next(ticks), time=lambda: 1.8e9)
        monkeypatch.setattr(module, "time", clock)
        if module is frame_progress:
            report = made(1200)
            for done in (100, 100, 100, 130, 160, 190):
                report("a", done, 1200)
        else:
            report = made()
            for done in (100, 100, 100, 130, 160, 190):
                report(SimpleNamespace(name="a"), done * 10**6, 1200 * 10**6)
        first, *_, last = [
            line for line in capsys.readouterr().err.splitlines() if "of 1200" in line
        ]
        assert "left" not in first and "/s" not in first
        assert re.search(r"[36](\.\d)?( MB)?/s, \d min \d\d s left, ends \w+ \d\d:\d\d$", last)
