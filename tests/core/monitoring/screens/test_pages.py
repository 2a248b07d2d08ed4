"""Every word of help, log and list can be reached at any size."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests import fake_run
from vlwm.core.monitoring.formatting import UNICODE
from vlwm.core.monitoring.panels import Room
from vlwm.core.monitoring.reader import RunReader
from vlwm.core.monitoring.screens import pages
from vlwm.core.monitoring.screens.view import LOG, View
from vlwm.core.monitoring.snapshot import Snapshot
from vlwm.core.run_folder import RunFolder


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = fake_run.write_run(tmp_path_factory.mktemp("runs") / "run", steps=100)
    return RunReader(RunFolder(folder.path)).read()


def text_of(page: RenderableType, room: Room) -> list[str]:
    out = Console(width=room.width, height=room.height, file=io.StringIO())
    out.print(page, crop=True, no_wrap=True, overflow="crop")
    return [line.rstrip() for line in out.file.getvalue().split("\n")]


@pytest.mark.parametrize(("width", "height"), [(40, 12), (80, 24), (200, 60)])
def test_help_is_read_whole_by_scrolling(width: int, height: int) -> None:
    room = Room(width, height, UNICODE)
    seen: list[str] = []
    for scroll in range(100):
        lines = text_of(pages.help_page(room, scroll), room)
        seen += [line for line in lines if line not in seen]
    whole = " ".join(" ".join(seen).split())
    for _, text in (*pages.KEYS, *pages.LABELS):
        for word in text.split():
            assert word in whole, word


def test_a_long_line_of_the_log_is_shown_whole(snapshot: Snapshot) -> None:
    texts = [f"line {n}: " + "a long sentence about a step " * 3 for n in range(50)]
    snapshot = replace(snapshot, log=tuple(texts))
    room = Room(40, 12, UNICODE)
    lines = text_of(pages.log_page(snapshot, View(screen=LOG), room), room)
    assert " ".join(" ".join(lines).split()).endswith(texts[-1].strip())
    assert all(len(line) <= 40 for line in lines)
    scrolled = text_of(pages.log_page(snapshot, View(screen=LOG, scroll=75), room), room)
    assert any("line 23" in line for line in scrolled)
    end = text_of(pages.log_page(snapshot, View(screen=LOG, scroll=9999), room), room)
    assert any(line.startswith("line 0") for line in end)


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_chosen_run_of_a_long_list_is_in_sight(snapshot: Snapshot, width: int) -> None:
    runs = [replace(snapshot, path=Path(f"/mnt/volume/runs/of/a/team/run_{n}")) for n in range(40)]
    room = Room(width, 12, UNICODE)
    for chosen in (0, 5, 20, 39):
        lines = text_of(pages.runs_page(runs, chosen, room), room)
        marked = [line for line in lines if line.startswith(">")]
        assert len(marked) == 1 and marked[0].endswith(f"run_{chosen}")
        assert len(lines) <= 13
