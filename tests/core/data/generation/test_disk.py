"""A disk that fills up or turns read-only under `prepare`, on a real file system of its own.

The file system is a tmpfs in a mount namespace; where that is not allowed, the tests skip.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.data.small_data import digest, make

SCRIPT = """
import json, subprocess, sys
from pathlib import Path
root, out, fault, workers = sys.argv[1], Path(sys.argv[2]) / "out", sys.argv[3], int(sys.argv[4])
sys.path.insert(0, root)
import dataclasses
from tests.core.data.small_data import PLAN, SIZE_M, config, digest
from vlwm.core.city.procedural import procedural_city
from vlwm.core.data.generation.prepare import prepare
from vlwm.core.data.npz import read_occupancy
from vlwm.core.errors import VlwmError

city = procedural_city(SIZE_M, 3)
plan = dataclasses.replace(PLAN, workers=workers, frames=10, sessions=3)
ballast, struck = out.parent / "ballast", []

def mount(how):
    subprocess.run(["mount", "-o", "remount," + how, out.parent], check=True)

def strike(session, done, total):
    if len(list(out.rglob("*.npz"))) < 12 or struck:
        return
    struck.append(True)
    if fault == "full":
        try:
            with open(ballast, "wb") as stream:
                while True:
                    stream.write(bytes(1 << 14))
        except OSError:
            pass
    else:
        mount("ro")

try:
    prepare(city, config(), out, plan, strike)
    told = "no error"
except VlwmError as error:
    told = f"{type(error).__name__}: {error}"
whole = [read_occupancy(p).shape for p in sorted(out.rglob("*.npz"))]
if fault == "full":
    ballast.unlink()
else:
    mount("rw")
prepare(city, config(), out, plan)
print(json.dumps({"told": told, "whole": len(whole), "digest": digest(out)}))
"""


@pytest.mark.parametrize(
    ("fault", "workers", "words"), [("full", 2, "disk is full"), ("ro", 1, "read-only")]
)
def test_one_sentence_whole_files_and_then_the_same_bytes(
    tmp_path: Path, fault: str, workers: int, words: str
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mount = 'mount -t tmpfs -o size=16m tmpfs "$1" && exec "$2" -c "$3" "$4" "$1" "$5" "$6"'
    if subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    root = str(Path(__file__).parents[4])
    values = [str(place), sys.executable, SCRIPT, root, fault, str(workers)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *values], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["told"].startswith("MachineError") and words in found["told"]
    assert "\n" not in found["told"] and found["whole"] >= 12
    make(tmp_path / "calm", frames=10, sessions=3)
    assert found["digest"] == digest(tmp_path / "calm")
