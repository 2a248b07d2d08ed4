"""A stranger installs the wheel: the three lines run, and mypy --strict accepts them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.trained_run import window_of, write_trained_run

ROOT = Path(__file__).parents[2]
SNIPPET = """
import numpy as np
import vlwm

model = vlwm.load("run")
forecast = model.forecast(np.load("occupancy.npy"), np.load("poses.npy"))
shape: tuple[int, ...] = forecast.probability.shape
risk = forecast.along(forecast.poses, radius_m=0.5)
reveal_type(model)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that sees neither this checkout nor its PYTHONPATH."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fresh virtual environment that holds the built wheel.

    The dependencies are those of this environment, behind the wheel on the path.
    """
    pytest.importorskip("hatchling", reason="building the wheel needs hatchling")
    folder = tmp_path_factory.mktemp("stranger")
    pip = (sys.executable, "-m", "pip")
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", ROOT, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (wheel,) = (folder / "dist").glob("*.whl")
    run(*pip, "install", "-q", "--no-deps", "--target", site, wheel, cwd=folder)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    config = write_trained_run(folder / "run")
    import numpy as np

    occupancy, poses, _ = window_of(config)
    np.save(folder / "occupancy.npy", occupancy)
    np.save(folder / "poses.npy", poses)
    return folder


@pytest.mark.ci
def test_the_three_lines_run_from_the_wheel(stranger: Path) -> None:
    (stranger / "lines.py").write_text(
        SNIPPET.replace("reveal_type(model)", "print(vlwm.__file__)")
    )
    where = run(stranger / "venv/bin/python", "lines.py", cwd=stranger)
    assert Path(where.strip()).is_relative_to(stranger)


@pytest.mark.ci
def test_strict_mypy_accepts_the_three_lines(stranger: Path) -> None:
    pytest.importorskip("mypy", reason="checking types needs mypy")
    (stranger / "typed.py").write_text(SNIPPET)
    python = stranger / "venv/bin/python"
    mypy = (sys.executable, "-m", "mypy", "--strict", "--no-incremental")
    told = run(*mypy, "--python-executable", python, "typed.py", cwd=stranger)
    assert 'Revealed type is "vlwm.api.Model"' in told and "Success" in told
