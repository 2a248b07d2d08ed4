"""Measure what `pip install 'vlwm[EXTRA]'` puts on the disk of a fresh virtual environment.

    python benchmarks/install_sizes.py [EXTRA …] [--folder DIR]

A fresh environment gets vlwm as the README does (`-c constraints.txt`); then each extra is
installed, weighed and uninstalled again, so that every one is measured beyond vlwm alone. A size
is the sum of all files under site-packages, those that pip compiles included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("mcap", "onnx", "bags", "px4", "las", "argoverse2", "s3", "dask", "docs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", default=EXTRAS)
    parser.add_argument("--folder", type=Path, help="where the environment is made (kept)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        began = time.monotonic()
        empty = packages(folder)
        install(folder, "")
        alone, mb = packages(folder), size_mb(folder)
        seconds = time.monotonic() - began
        print(f"vlwm: {len(alone) - len(empty)} packages, {mb:.1f} MB, {seconds:.0f} s", flush=True)
        print("   of which " + ", ".join(largest(folder, 4)), flush=True)
        for extra in given.extras:
            began = time.monotonic()
            install(folder, f"[{extra}]")
            more = sorted(packages(folder) - alone)
            added, seconds = size_mb(folder) - mb, time.monotonic() - began
            names = ", ".join(more)
            print(f"{extra}: {len(more)} packages, {added:.1f} MB, {seconds:.0f} s: {names}")
            sys.stdout.flush()
            if more:
                pip(folder, "uninstall", "-q", "-y", *more)


def pip(folder: Path, *words: str) -> str:
    """Run pip of the environment and return what it prints."""
    command = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def install(folder: Path, extra: str) -> None:
    """Install vlwm with an extra, as the README does."""
    pip(folder, "install", "-q", "-e", f"{ROOT}{extra}", "-c", str(ROOT / "constraints.txt"))


def packages(folder: Path) -> set[str]:
    """Return the names of the packages of an environment."""
    return {entry["name"] for entry in json.loads(pip(folder, "list", "--format", "json"))}


def size_mb(folder: Path) -> float:
    """Return the size of all packages, in MB (10^6 bytes)."""
    return sum(file.lstat().st_size for file in _site(folder).rglob("*")) / 1e6


def largest(folder: Path, most: int) -> list[str]:
    """Return the largest folders of site-packages with their sizes, in words."""
    sizes = {
        place.name: sum(file.lstat().st_size for file in place.rglob("*")) / 1e6
        for place in _site(folder).iterdir()
    }
    first = sorted(sizes, key=lambda name: -sizes[name])[:most]
    return [f"{name} {sizes[name]:.0f} MB" for name in first]


def _site(folder: Path) -> Path:
    (place,) = folder.glob("lib/python3*/site-packages")
    return place


if __name__ == "__main__":
    main()
