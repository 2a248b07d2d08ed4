"""Peak memory of `vlwm prepare` on a large archive, and what a kill in between costs.

    python benchmarks/archive_memory.py [--gb 2.2] [--scans 400] [--kill-after-s 15] [--place DIR]

Writes two archives in UAVScenes' layout with the same kind of scans: a small one (a tenth of the
scans, no filling) and one of --gb gigabytes, its pictures filled with random bytes as JPEGs would
be. `vlwm prepare --dataset uavscenes` reads each member by member. The large one is killed once
(SIGKILL) and started again. Then its frames are compared with those of a run that was not killed,
by their checksums.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
_HZ, _SPEED_M_S, _HEIGHT_M, _POINTS = 5.0, 4.0, 15.0, 4000
_DOWN = [[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]  # a camera that looks down
_CAMERA = [0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0]  # lidar axes to camera axes
_GRID = ("point_cloud_range=[-24,-24,-2,24,24,28]", "voxel_size=[1.6,1.6,5.0]")


def write_archive(path: Path, scans: int, fill_bytes: int) -> None:
    """Write an archive of a drone over boxes on a plane; pictures hold random bytes."""
    rng = np.random.default_rng(5)
    run = "interval5_CAM_LIDAR/interval5_AMtown02"
    infos = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for k in range(scans):
            stamp = f"{1.7e9 + k / _HZ:.6f}"
            matrix = np.eye(4)
            matrix[:3, :3] = _DOWN
            matrix[:3, 3] = [k / _HZ * _SPEED_M_S, 0.0, _HEIGHT_M]
            infos.append({"OriginalImageName": f"{stamp}.jpg", "T4x4": matrix.tolist()})
            ground = rng.uniform(-20, 20, (_POINTS, 2))
            high = 4.0 * ((np.floor((ground[:, 0] + matrix[0, 3]) / 10) % 2) == 0)
            # in the camera: right, down, forward; the lidar looks along its own x
            camera = np.column_stack([-ground[:, 1], -ground[:, 0], _HEIGHT_M - high])
            lidar = np.column_stack([camera[:, 2], -camera[:, 0], -camera[:, 1]])
            rows = "\n".join(f"{x:.3f} {y:.3f} {z:.3f}" for x, y, z in lidar)
            archive.writestr(f"{run}/interval5_LIDAR/image{stamp}_lidar{stamp}.txt", rows)
            if fill_bytes:
                archive.writestr(f"{run}/interval5_CAM/{stamp}.jpg", os.urandom(fill_bytes))
        archive.writestr(f"{run}/sampleinfos_interpolated.json", json.dumps(infos))


def calibration(folder: Path) -> None:
    row = {"camera_ext_R": _CAMERA, "camera_ext_t": [0.0, 0.0, 0.0]}
    table = {"used_by": {"AMtown02": "A"}, "calibrations": {"A": row}}
    (folder / "calibration.json").write_text(json.dumps(table))


def prepare(archive: Path, output: Path, kill_after_s: float | None = None) -> dict[str, Any]:
    """Run `vlwm prepare`; return seconds and peak memory, which /proc tells."""
    sets = [word for pair in _GRID for word in ("--set", pair)]
    line = [sys.executable, "-m", "vlwm", "prepare", "--dataset", "uavscenes", "--input",
            str(archive), "--output", str(output), "--config", "finetune_uavscenes",
            "--workers", "1", *sets]  # fmt: skip
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        peak = max(peak, _peak_mb(process.pid))
        if kill_after_s is not None and time.monotonic() - start > kill_after_s:
            process.kill()
        time.sleep(0.2)
    error = process.stderr.read().decode() if process.stderr else ""
    if process.returncode and kill_after_s is None:
        raise SystemExit(error[-2000:])
    frames = len(list(output.glob("*/occupancy/*.npz")))
    return {
        "wall_s": round(time.monotonic() - start, 1),
        "peak_mb": round(peak),
        "frames": frames,
        "exit": process.returncode,
    }


def _peak_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    rows = [r for r in text.splitlines() if r.startswith("VmHWM")]
    return float(rows[0].split()[1]) / 1024 if rows else 0.0


def checksum(output: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(output.rglob("*.npz")) + sorted(output.rglob("poses/*.json")):
        total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()[:16]


def measure(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return what was measured; steps that `place` has kept are not repeated."""
    kept = place / "steps.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}

    def step(name: str, make: Callable[[], Any]) -> None:
        if name not in found:
            found[name] = make()
            print(name, found[name], flush=True)
            kept.write_text(json.dumps(found))

    def written(path: Path, scans: int, fill_bytes: int) -> int:
        write_archive(path, scans, fill_bytes)
        return round(path.stat().st_size / 1e6)

    calibration(place)
    small, large = place / "small.zip", place / "large.zip"
    fill = int(given.gb * 1e9 / given.scans)
    step("small archive, MB", lambda: written(small, given.scans // 10, 0))
    step("large archive, MB", lambda: written(large, given.scans, fill))
    step("small", lambda: prepare(small, place / "of_small"))
    step("large", lambda: prepare(large, place / "of_large"))
    step("killed", lambda: prepare(large, place / "resumed", given.kill_after_s))
    step("resumed", lambda: prepare(large, place / "resumed"))
    same = checksum(place / "of_large") == checksum(place / "resumed")
    return {**found, "same bytes": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=2.2)
    parser.add_argument("--scans", type=int, default=400)
    parser.add_argument("--kill-after-s", type=float, default=15.0)
    parser.add_argument("--place", type=Path, help="folder to keep; the same line goes on there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.place or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(place, given), indent=1))


if __name__ == "__main__":
    main()
