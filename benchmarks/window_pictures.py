"""Draw a frame of each genuine sample as its reader makes it, to be looked at.

    python benchmarks/window_pictures.py --output DIR [--data ../shared/data] [--only NAME]

One PNG each: the cells from above (ahead is up, left is left), the cut along the heading through
the vehicle, the picture of the camera where the sample has one, and the path of the poses. A
mirrored axis, a ground at the wrong height, an upside-down cloud or returns of the vehicle itself
can be seen at once. Bags and logs without points show their paths only.

    kitti           six scans in a row, moved by their poses
    argoverse2      two sweeps
    newer_college   one Ouster scan, raw and deskewed by its times
    nuscenes        a key frame with its annotated boxes
    occ3d           a label frame
    tartanair       ten depth pictures
    rosbag          odometry of a bag
    px4             two logs
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from vlwm.core.data.recordings.convert import convert
from vlwm.core.data.recordings.formats.axes import AXES, to_standard
from vlwm.core.data.recordings.formats.pose_files import read_poses
from vlwm.core.data.recordings.options import ConvertOptions
from vlwm.core.data.recordings.pose_track import PoseTrack, quaternion_of_matrix
from vlwm.core.data.recordings.readers.argoverse2 import read_argoverse2
from vlwm.core.data.recordings.readers.kitti import read_kitti
from vlwm.core.data.recordings.readers.nuscenes import (
    FREE,
    off_the_roof,
    read_lidar_file,
    read_occ3d,
)
from vlwm.core.data.recordings.readers.tartanair import read_tartanair
from vlwm.core.data.recordings.recording import Recording, Scan
from vlwm.core.data.session import Session
from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import HeightScale
from vlwm.core.figures.window_figure import from_above, in_cut
from vlwm.core.geometry.grid import VoxelGrid

STREET = VoxelGrid.from_range((-40, -40, -3, 40, 40, 9), (0.4, 0.4, 0.4))
ROOM = VoxelGrid.from_range((-8, -8, -3, 8, 8, 3), (0.1, 0.1, 0.1))
OCC3D = VoxelGrid.from_range((-40, -40, -1, 40, 40, 5.4), (0.4, 0.4, 0.4))
_PANEL = 640  # pixels of the view from above
_CUT = 900


@dataclass
class Shown:
    """What is drawn of a sample.

    Attributes:
        words: title.
        grid, cells, known: a frame (X, Y, Z); `known` may be None.
        picture: of the camera, blue first, or None.
        boxes: corners (K, 4, 2) of annotated boxes, ego frame, metres.
        path: (N, 2), positions of the poses.
    """

    words: str
    grid: VoxelGrid | None = None
    cells: np.ndarray | None = None
    known: np.ndarray | None = None
    picture: np.ndarray | None = None
    boxes: list[np.ndarray] = field(default_factory=list)
    path: np.ndarray | None = None


def _frame(recording: Recording, grid: VoxelGrid, words: str, rate_hz: float = 10.0) -> Shown:
    """Return the frame in the middle of a recording, as `vlwm prepare` makes it."""
    options = ConvertOptions(rate_hz=rate_hz, window_s=1.0)
    with tempfile.TemporaryDirectory() as place:
        report = convert(recording, Path(place), grid, options)
        session = Session(Path(place) / report.session)
        number = int(session.numbers[len(session.numbers) // 2])
        layers = session.read_layers(number)
    path = recording.poses.positions[:, :2]
    return Shown(words, grid, layers["occupancy"], layers.get("known"), path=path)


def kitti(root: Path) -> Iterator[tuple[str, Shown]]:
    (recording,) = read_kitti(root / "kitti_odometry")
    yield "kitti", _frame(recording, STREET, "KITTI odometry 00, six scans (CC BY-NC-SA 3.0)")


def argoverse2(root: Path) -> Iterator[tuple[str, Shown]]:
    (recording,) = read_argoverse2(root / "argoverse2")
    yield "argoverse2", _frame(recording, STREET, "Argoverse 2, two sweeps (CC BY-NC-SA 4.0)")


def newer_college(root: Path) -> Iterator[tuple[str, Shown]]:
    from real_recordings import newer_college_scan

    scan, track = newer_college_scan(root, 2)
    for name, deskew in (("raw", False), ("deskewed", True)):
        recording = Recording("ouster", "rover", lambda: iter([scan]), track, {"LIDAR": np.eye(4)})
        options = ConvertOptions(rate_hz=20.0, window_s=1.0, deskew=deskew, remove_moving=False)
        with tempfile.TemporaryDirectory() as place:
            report = convert(recording, Path(place), STREET, options)
            session = Session(Path(place) / report.session)
            layers = session.read_layers(int(session.numbers[0]))
        words = f"Newer College, one Ouster scan, {name}; a tilted sensor (CC BY-NC-SA 4.0)"
        yield f"ouster_{name}", Shown(words, STREET, layers["occupancy"], layers["known"])


def nuscenes(root: Path) -> Iterator[tuple[str, Shown]]:
    """Yield the key frame: its scan at rest, with the annotated boxes in the ego frame."""
    folder = root / "nuscenes_keyframe"
    (table,) = folder.glob("*.json")
    frame = json.loads(table.read_text())["data_list"][0]
    (file,) = folder.glob("*.pcd.bin")
    cloud = read_lidar_file(file)
    away = off_the_roof(cloud)
    ego, mount = np.array(frame["ego2global"]), np.array(frame["lidar_points"]["lidar2ego"])
    now = float(frame["timestamp"])
    turn = quaternion_of_matrix(ego[:3, :3])
    track = PoseTrack.of(now + np.array([-0.2, 0.3]), np.array([ego[:3, 3]] * 2), [turn] * 2)
    scan = Scan(now, cloud[away, :3])
    recording = Recording("key", "rover", lambda: iter([scan]), track, {"LIDAR": mount})
    words = "nuScenes scene-0061, one key frame and its boxes (CC BY-NC-SA 4.0)"
    shown = _frame(recording, STREET, words, rate_hz=5.0)
    shown.boxes = [_corners(box["bbox_3d"], mount) for box in frame["instances"]]
    picture = cv2.imread(str(next(folder.glob("*CAM_FRONT__*"))))
    shown.picture = picture
    yield "nuscenes", shown


def _corners(box: list[float], mount: np.ndarray) -> np.ndarray:
    """Return the corners (4, 2) of a box from the lidar's frame, in the ego frame."""
    x, y, z, length, width, _, yaw = box
    along = np.array([np.cos(yaw), np.sin(yaw), 0]) * length / 2
    across = np.array([-np.sin(yaw), np.cos(yaw), 0]) * width / 2
    middle = np.array([x, y, z])
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    corners = np.array([middle + a * along + b * across for a, b in signs])
    return np.asarray((corners @ mount[:3, :3].T + mount[:3, 3])[:, :2])


def occ3d(root: Path) -> Iterator[tuple[str, Shown]]:
    (file,) = (root / "occ3d").rglob("labels.npz")
    classes = read_occ3d(file)
    assert classes is not None
    cells = (classes != FREE).astype(np.uint8)
    yield "occ3d", Shown("Occ3D-nuScenes, one label frame (non-commercial)", OCC3D, cells)


def tartanair(root: Path) -> Iterator[tuple[str, Shown]]:
    (recording,) = read_tartanair(root / "tartanair")
    shown = _frame(recording, ROOM, "TartanAir V1, ten depth pictures")
    file = sorted((root / "tartanair").rglob("*_left.png"))[5]
    shown.picture = cv2.imread(str(file))
    yield "tartanair", shown


def rosbag(root: Path) -> Iterator[tuple[str, Shown]]:
    """Yield the odometry of a real bag: none at hand has points."""
    from vlwm.core.data.recordings.readers import bags

    path = root / "rosbag2/nav2_turtlebot.mcap"
    with bags._opened(path) as bag:
        tree = bags._transforms(bag)
        track, body, _, _ = bags._poses(bags.BagSource(path), bag, tree)
    words = f"nav2 turtlebot: {len(track)} poses of {body}; the bag has no points"
    yield "rosbag", Shown(words, path=track.positions[:, :2])


def px4(root: Path) -> Iterator[tuple[str, Shown]]:
    for name in ("sitl_takeoff", "v6c_flight_gps"):
        track = read_poses(root / f"px4_ulog/{name}.ulg").track
        words = f"PX4 {name}: {len(track)} poses, to east-north-up; the log has no points"
        standard = to_standard(track, AXES["ned"])
        yield f"px4_{name}", Shown(words, path=standard.positions[:, :2])


SAMPLES: dict[str, Callable[[Path], Iterator[tuple[str, Shown]]]] = {
    "kitti": kitti, "argoverse2": argoverse2, "newer_college": newer_college,
    "nuscenes": nuscenes, "occ3d": occ3d, "tartanair": tartanair, "rosbag": rosbag, "px4": px4,
}  # fmt: skip


def draw(shown: Shown) -> np.ndarray:
    """Return a picture, uint8 (rows, columns, 3)."""
    image = canvas.blank(_PANEL + 60, _PANEL + _CUT + 60)
    canvas.text(image, shown.words, (20, 30), size=0.7)
    top, left = 50, 20
    if shown.grid is not None and shown.cells is not None:
        _draw_cells(image, shown, top, left)
    if shown.path is not None:
        _draw_path(image, shown.path, (top + 370, left + _PANEL + 20))
    if shown.picture is not None:
        small = cv2.resize(shown.picture, (430, 240), interpolation=cv2.INTER_AREA)
        at = top + 370, left + _PANEL + 300
        image[at[0] : at[0] + 240, at[1] : at[1] + 430] = small
    return image


def _draw_cells(image: np.ndarray, shown: Shown, top: int, left: int) -> None:
    grid, cells = shown.grid, shown.cells
    assert grid is not None and cells is not None
    scale = HeightScale(ground_m=0.4, top_m=float(grid.upper_m[2]))
    mask = None if shown.known is None else shown.known > 0
    above = from_above(cells, grid, scale, mask)
    side = cv2.resize(above, (_PANEL, _PANEL), interpolation=cv2.INTER_NEAREST)
    reach = grid.upper_m[0]
    for corners in shown.boxes:
        rows = (reach - corners[:, 0]) / (2 * reach) * _PANEL
        columns = (reach - corners[:, 1]) / (2 * reach) * _PANEL
        points = np.stack([columns, rows], -1).astype(np.int32)
        cv2.polylines(side, [points], True, canvas.FALSE, 1, cv2.LINE_AA)
    middle = _PANEL // 2
    arrow = np.array([[middle, middle - 9], [middle - 5, middle + 6], [middle + 5, middle + 6]])
    cv2.fillPoly(side, [arrow.astype(np.int32)], canvas.CUT)
    image[top : top + _PANEL, left : left + _PANEL] = side
    # the cut: five rows around the vehicle as one
    middle_row = grid.shape[1] // 2
    band = slice(middle_row - 2, middle_row + 3)
    thick = cells[:, band].max(axis=1, keepdims=True)
    known = None if mask is None else mask[:, band].any(axis=1, keepdims=True)
    cut = in_cut(thick, grid, scale, 0, known)
    height = round(_CUT * cut.shape[0] * grid.cell_m[2] / (cut.shape[1] * grid.cell_m[0]))
    wide = cv2.resize(cut, (_CUT, height), interpolation=cv2.INTER_NEAREST)
    row = round((grid.upper_m[2] - 0.0) / (grid.upper_m[2] - grid.lower_m[2]) * height)
    cv2.line(wide, (0, row), (_CUT, row), canvas.CUT, 1)
    cv2.circle(wide, (_CUT // 2, row), 4, canvas.CUT, -1)
    image[top + 20 : top + 20 + height, left + _PANEL + 20 : left + _PANEL + 20 + _CUT] = wide
    words = "cut along the heading; ahead is right; the line is z = 0, the terrain below the body"
    canvas.text(image, words, (left + _PANEL + 20, top + 10), size=0.5)


def _draw_path(image: np.ndarray, path: np.ndarray, at: tuple[int, int]) -> None:
    """Draw positions (N, 2), x up and y left, in a square of 240 pixels; the start is a dot."""
    low, high = path.min(axis=0), path.max(axis=0)
    size = float(max((high - low).max(), 1e-6))
    share = (path - (low + high) / 2) / size  # -0.5 .. 0.5
    rows = at[0] + 120 - 220 * share[:, 0]
    columns = at[1] + 120 - 220 * share[:, 1]
    points = np.stack([columns, rows], -1).astype(np.int32)
    cv2.polylines(image, [points], False, canvas.INK, 1, cv2.LINE_AA)
    cv2.circle(image, tuple(points[0].tolist()), 4, canvas.CUT, -1)
    words = f"path, {size:.1f} m; x up, y left"
    canvas.text(image, words, (at[1], at[0] + 255), size=0.45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(SAMPLES))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for name, sample in SAMPLES.items():
        if given.only not in (None, name):
            continue
        try:
            for file, shown in sample(given.data):
                canvas.write_png(given.output / f"{file}.png", draw(shown))
                print(given.output / f"{file}.png", flush=True)
        except (OSError, StopIteration, ValueError) as error:
            print(f"{name}: left out: {error}")


if __name__ == "__main__":
    main()
