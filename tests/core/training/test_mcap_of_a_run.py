"""The file of `vlwm eval RUN --mcap FILE`, read back by the reader of the format's authors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vlwm
from tests.core.export.test_mcap_file import cells_of, read
from vlwm.cli import app

PAST, FUTURE = 2, 2


def sessions(data: Path) -> dict[bytes, tuple[Path, int]]:
    """Where each frame of a data folder is from, by its cells."""
    return {
        np.load(file)["occupancy"].tobytes(): (file.parents[1], int(file.name[:6]))
        for file in sorted(data.glob("*/occupancy/*.npz"))
    }


def motion(session: Path, frames: range) -> tuple[np.ndarray, np.ndarray]:
    """Poses (F, 13) and terrain heights (F,) of a session, from its files."""
    told = [json.loads((session / f"poses/{number:06d}.json").read_text()) for number in frames]
    poses = [
        [*p["position"].values(), *p["orientation"].values(), *p["velocity"]["linear"].values(),
         *p["velocity"]["angular"].values()]
        for p in told
    ]  # fmt: skip
    return np.array(poses), np.array([p["ground_z"] for p in told])


def test_frames_and_forecasts_of_a_run_are_read_by_another_reader(
    whole_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mcap_protobuf", reason="needs the extra mcap")
    file, model = tmp_path / "run.mcap", vlwm.load(whole_run)
    words = ["eval", str(whole_run), "--split", "val", "--max-windows", "2", "--mcap", str(file)]
    before = (whole_run / "scores.json").read_bytes()
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    (whole_run / "scores.json").write_bytes(before)  # other tests read the test split's

    found = read(file)
    layers = {topic: np.stack([cells_of(m) for t, _, m in found if t == topic])
              for topic in ("/past", "/truth", "/forecast", "/difference")}  # fmt: skip
    windows = len(layers["/past"]) // PAST
    assert windows == 2 and len(layers["/forecast"]) == windows * FUTURE
    frames = sessions(tiny_data)
    for w in range(windows):
        mine = {name: cells[w * (len(cells) // windows) :][: len(cells) // windows]
                for name, cells in layers.items()}  # fmt: skip
        # the cells are those of consecutive frames of one session, past before future
        session, first = frames[mine["/past"][0].tobytes()]
        places = [frames[cells.tobytes()] for cells in (*mine["/past"], *mine["/truth"])]
        assert places == [(session, first + n) for n in range(PAST + FUTURE)]
        # the forecast is that of the run's model from these frames
        poses, ground = motion(session, range(first, first + PAST))
        forecast = model.forecast(mine["/past"], poses, ground_z=ground)
        np.testing.assert_array_equal(mine["/forecast"], forecast.occupied)
        both = mine["/truth"] + 2 * mine["/forecast"]  # 0 empty, 1 missed, 2 false, 3 agreed
        np.testing.assert_array_equal(mine["/difference"], np.array([0, 2, 3, 1])[both])
    attribution = {m.message for topic, _, m in found if topic == "/attribution"}
    assert attribution == ({model.attribution} if model.attribution else set())
