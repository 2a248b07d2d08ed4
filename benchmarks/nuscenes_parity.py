"""Our nuScenes reader against the devkit: points in the world, poses, official splits.

    python -m venv devkit && devkit/bin/pip install "numpy<2" nuscenes-devkit
    python benchmarks/nuscenes_parity.py --devkit devkit/bin/python [--root DIR]

The devkit pins numpy < 2, so it runs in an environment and a process of its own. Without --root a
scene of the known city is written by the tests' writer, with all 13 tables: no moving scene of
nuScenes is part of the samples of this project. With --root the scenes of a nuScenes folder are
compared, 20 lidar files of each.

Returns of the vehicle's own roof and bonnet are left out by our reader; they are left out here with
the same box before points are compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from vlwm.core.data.recordings.placing import place_scan
from vlwm.core.data.recordings.readers.nuscenes import read_nuscenes, split_of

_MOST = 20
_DEVKIT = r"""
import json, sys
import numpy as np
from nuscenes.nuscenes import NuScenes
from nuscenes.utils import splits
from nuscenes.utils.data_classes import LidarPointCloud
from pyquaternion import Quaternion
root, version, out, most = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
nusc = NuScenes(version, root, verbose=False)
found, times = {}, {}
for scene in nusc.scene:
    sample = nusc.get('sample', scene['first_sample_token'])
    data = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    rows = []
    while len(rows) < most:
        cloud = LidarPointCloud.from_file(nusc.get_sample_data_path(data['token']))
        x, y = cloud.points[:2]
        away = (np.abs(x) > 1.0) | (y < -2.0) | (y > 2.6)
        cloud.points = cloud.points[:, away].astype(np.float64)
        for table, token in (('calibrated_sensor', data['calibrated_sensor_token']),
                             ('ego_pose', data['ego_pose_token'])):
            row = nusc.get(table, token)
            cloud.rotate(Quaternion(row['rotation']).rotation_matrix)
            cloud.translate(np.array(row['translation']))
        rows.append((data['timestamp'], cloud.points[:3].T))
        if not data['next']:
            break
        data = nusc.get('sample_data', data['next'])
    for k, (stamp, points) in enumerate(rows):
        found[f"{scene['name']}/{k}"] = points
        times[f"{scene['name']}/{k}"] = stamp
np.savez(out, **found)
print(json.dumps({'times': times, 'val': splits.val, 'train': splits.train,
                  'mini_val': splits.mini_val, 'mini_train': splits.mini_train}))
"""
"""what runs in the devkit's environment"""


def known_scene(root: Path) -> Path:
    """Write a scene of the known city with all 13 tables and the links that the devkit follows."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from dataclasses import replace

    from tests.core.data.recordings.readers.test_nuscenes import write
    from tests.core.data.recordings.sessions import STILL

    write(root, replace(STILL, scan_hz=10.0).recording, "scene-0061")
    folder = root / "v1.0-mini"
    tables = {p.stem: json.loads(p.read_text()) for p in folder.glob("*.json")}
    tables["sample_data"] = [d for d in tables["sample_data"] if d["token"] != "pic"]
    for name in ("sample", "sample_data"):
        rows = tables[name]
        for k, row in enumerate(rows):
            row["prev"] = rows[k - 1]["token"] if k else ""
            row["next"] = rows[k + 1]["token"] if k + 1 < len(rows) else ""
    scene, samples = tables["scene"][0], tables["sample"]
    scene |= {"log_token": "", "nbr_samples": len(samples), "description": "",
              "first_sample_token": samples[0]["token"],
              "last_sample_token": samples[-1]["token"]}  # fmt: skip
    for row in tables["sensor"]:
        row["modality"] = "lidar" if row["channel"] == "LIDAR_TOP" else "camera"
    for name in ("category", "attribute", "visibility", "instance", "log", "sample_annotation"):
        tables[name] = []
    # the devkit looks into the first row of the map table, and asks that its file exists
    tables["map"] = [{"token": "m", "log_tokens": [], "filename": "v1.0-mini/scene.json"}]
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return root


def compare(root: Path, devkit: str) -> None:
    version = sorted(p.parent.name for p in root.glob("v1.0-*/scene.json"))[-1]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "devkit.npz"
        line = [devkit, "-c", _DEVKIT, str(root), version, str(out), str(_MOST)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the devkit's process failed:\n{done.stderr[-2000:]}")
        told = json.loads(done.stdout)
        theirs = dict(np.load(out))
    worst, compared = 0.0, 0
    for recording in read_nuscenes(root):
        for k, scan in enumerate(recording.scans()):
            points = theirs.get(f"{recording.name}/{k}")
            if points is None:
                break
            placed = place_scan(scan, recording.poses, recording.extrinsics, deskew=False)
            assert placed is not None and len(placed.points) == len(points)
            assert round(scan.time_s * 1e6) == told["times"][f"{recording.name}/{k}"]
            worst = max(worst, float(np.abs(placed.points - points).max()))
            compared += 1
    print(f"{compared} lidar files: points in the world differ by at most {worst:.2e} m")
    ours = {s: split_of("v1.0-trainval", s) for s in told["val"] + told["train"]}
    held = {s for s, split in ours.items() if split == "test"}
    print(f"official validation scenes: {len(told['val'])}, ours that test: {len(held)}, "
          f"equal: {held == set(told['val'])}")  # fmt: skip
    mini = {s for s in told["mini_val"] + told["mini_train"] if split_of("v1.0-mini", s) == "test"}
    print(f"mini_val {sorted(told['mini_val'])}, ours {sorted(mini)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devkit", required=True, help="Python with nuscenes-devkit")
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    if given.root is not None:
        compare(given.root, given.devkit)
        return
    with tempfile.TemporaryDirectory() as place:
        compare(known_scene(Path(place)), given.devkit)


if __name__ == "__main__":
    main()
