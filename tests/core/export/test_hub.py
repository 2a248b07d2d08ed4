"""Upload and download with the real client against a stand-in on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.hub_stand_in import Hub, hub_stand_in
from tests.trained_run import window_of, write_trained_run

TOKEN = "hf_ofNobodyButThisTest"
ROOT = Path(__file__).parents[3]
ROUND_TRIP = """
import numpy as np, vlwm
occupancy, poses = np.load("occupancy.npy"), np.load("poses.npy")
here = vlwm.load("run")
print(here.push_to_hub("user/name", dry_run=True).url, here.push_to_hub("user/name").url)
for revision in (None, f"{2:040x}"):
    there = vlwm.load("user/name", revision=revision)
    for name in ("probability", "occupied", "poses", "ego", "sigma"):
        a, b = (getattr(m.forecast(occupancy, poses), name) for m in (here, there))
        assert np.array_equal(a, b), name
    print(there.attribution == here.attribution)
"""
REFUSALS = """
import sys
from pathlib import Path
from vlwm.core.errors import VlwmError
from vlwm.core.export import hub
for call in sys.argv[1:]:
    try:
        eval(call)
    except VlwmError as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hub_stand_in() as found:
        yield found


def run(hub: Hub, folder: Path, *command: str, token: str = TOKEN) -> str:
    """Run Python in `folder` with the stand-in as the Hub; returns its output."""
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token,
           "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT),
           "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert TOKEN not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.ci
def test_a_model_comes_back_from_the_hub_bit_by_bit(hub: Hub, tmp_path: Path) -> None:
    """Through an answer 500, a cut upload and an answer 429, with the client's own retries."""
    config = write_trained_run(tmp_path / "run")
    occupancy, poses, _ = window_of(config)
    np.save(tmp_path / "occupancy.npy", occupancy)
    np.save(tmp_path / "poses.npy", poses)
    hub.faults = [("objects/batch", 500), ("PUT /lfs/", 0), ("preupload", 429)]
    told = run(hub, tmp_path, "-c", ROUND_TRIP).splitlines()[-3:]
    assert hub.faults == [] and told[0] == f"None {hub.url}/user/name/commit/{Hub.sha(1)}"
    assert told[1:] == ["True", "True"]
    assert hub.private == {"user/name": True}
    assert {token for _, path, token in hub.seen if "/api/models" in path} == {f"Bearer {TOKEN}"}
    assert set(hub.repos["user/name"][-1]) == {
        "model.safetensors", "config.json", "forecast.json", "scores.json", "forecast.png",
        "README.md",
    }  # fmt: skip


PUSH = "hub.push_folder(Path('full'), 'user/name')"
CASES = [
    ("hub.push_folder(Path('.'), 'name')", 0, "UsageError 'name' is not a name on the Hub"),
    ("hub.push_folder(Path('.'), 'user/name')", 0, "DataError the exported folder lacks model"),
    (PUSH, 401, "DataError the Hub asks for a login (user/name): run: hf auth login"),
    (PUSH, 429, "MachineError the Hub answers that there were too many requests"),
    (PUSH, 500, "MachineError the Hub answered 500"),
    ("hub.fetch_folder('user/none')", 0, "DataError no such repository on the Hub"),
    ("hub.fetch_folder('user/other', 'v9')", 0, "DataError the repository has no revision 'v9'"),
    ("hub.fetch_folder('user/other')", 0, "DataError the repository is not a model of vlwm"),
]  # fmt: skip


def test_what_the_hub_refuses_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    from vlwm.core.export.file_names import FILES

    hub.repos["user/other"], hub.private["user/other"] = [{"README.md": b"# other"}], False
    (tmp_path / "full").mkdir()
    for name in FILES:
        (tmp_path / "full" / name).write_bytes(b"x")
    hub.faults = [("/repos/create", status) for _, status, _ in CASES if status]
    told = run(hub, tmp_path, "-c", REFUSALS, *(call for call, _, _ in CASES)).splitlines()
    for line, (_, _, words) in zip([x for x in told if "Error" in x], CASES, strict=True):
        assert line.startswith(words)


def test_a_hub_that_cannot_be_reached_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.url = "http://127.0.0.1:9"
    told = run(hub, tmp_path, "-c", REFUSALS, "hub.fetch_folder('user/name')")
    assert "the Hub cannot be reached, and there is no local copy" in told
