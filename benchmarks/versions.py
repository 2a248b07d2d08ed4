"""Try the lowest versions that pyproject.toml allows, or the newest, in a fresh environment.

    python benchmarks/versions.py lowest|newest [--keep DIR] [--tests PATH …]

Run by hand on Python 3.11 or newer, after a bound has changed: the download is large (torch).
Printed: the versions installed, and the result of `vlwm --help` and of some tests.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/core/geometry",
    "tests/core/config",
    "tests/core/model",
    "tests/core/training/loop/test_pieces.py",
    "tests/core/data/test_packed_store.py",
    "tests/core/city/readers/test_obj.py",
)
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "torchmetrics")


def requirements(lowest: bool) -> list[str]:
    """Return the direct dependencies, each at its lower bound or without any bound but its cap."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    # 4.8 is the newest 4.8.x: many packages have no release of two numbers
    return [
        re.sub(r">=([\d.]+)(?!.*post).*", r"==\1.*", text) if lowest else text for text in declared
    ]


def run(*words: str | Path) -> int:
    """Run a command in the checkout and return its exit status."""
    print("$", *words, flush=True)
    return subprocess.run(
        [str(w) for w in words], cwd=ROOT, check=False, env=_environment()
    ).returncode


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}


def main() -> int:
    """Make the environment, install, test; return 0 if all of it works."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("--keep", type=Path, help="folder of the environment; else a temporary one")
    parser.add_argument("--tests", nargs="*", default=TESTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary) / "venv"
        venv.create(folder, with_pip=True)
        python = folder / "bin/python"
        wanted = requirements(asked.which == "lowest")
        if run(python, "-m", "pip", "install", "-q", "--upgrade", *wanted):
            return 1
        run(python, "-m", "pip", "install", "-q", *TOOLS)
        run(python, "-m", "pip", "list", "--format=freeze")
        failed = run(python, "-m", "vlwm", "--help")
        return run(python, "-m", "pytest", "-q", "-x", *asked.tests) or failed


if __name__ == "__main__":
    sys.exit(main())
