"""Draw the pictures of the README and of the pages, of real Tokyo (PLATEAU's tiles of Marunouchi).

    vlwm prepare --input TILES --output DATA --config tokyo_small --lidar --camera
    vlwm train --config tokyo_small --data DATA --work-dir RUN
    python docs/pictures.py --data DATA --run RUN

Every picture carries PLATEAU's attribution in Japanese, as `core/figures` writes it. Without --run
the forecast is that of the strongest baseline; without scans and pictures in DATA sensors.jpg stays
as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vlwm.core.config.load import load_config
from vlwm.core.data.sensors.camera import read_picture
from vlwm.core.data.sensors.lidar import read_lidar
from vlwm.core.evaluation.load import EvalData, Opened, open_baselines, open_run
from vlwm.core.figures import canvas
from vlwm.core.figures.canvas import HeightScale
from vlwm.core.figures.eval_figures import write_picture
from vlwm.core.files import read_json

IMAGES = Path(__file__).parent / "images"
PICTURES = ("forecast.png", "sensors.jpg")
"""files in docs/images, all of which this command writes"""

_FORECAST, _SENSORS = PICTURES
_SPLIT = "test"
_SIDE = 900  # pixels of the scan, as high as the camera's picture
_REACH_M = 60.0  # half of the side of the scan's view


def main(words: Sequence[str] | None = None) -> None:
    """Write the pictures that the data and the run allow, and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Prepared sessions.")
    parser.add_argument("--run", type=Path, help="Run folder; without it a baseline forecasts.")
    parser.add_argument("--config", default="tokyo_small", help="Preset of DATA, without --run.")
    parser.add_argument("--output", type=Path, default=IMAGES, help="Folder of the pictures.")
    asked = parser.parse_args(words)
    opened = _open(asked.run, asked.data, asked.config)
    write_picture(asked.output / _FORECAST, opened.subject, _SPLIT)
    print(asked.output / _FORECAST)
    pairs = sorted(asked.data.glob("*/images/*_CAM_FRONT.jpg"))
    if pairs:
        draw_sensors(pairs[len(pairs) // 2], asked.output / _SENSORS)
        print(asked.output / _SENSORS)


def _open(run: Path | None, root: Path, config: str) -> Opened:
    data = EvalData(_SPLIT, root, max_windows=8)
    if run is not None:
        return open_run(run, data)
    return open_baselines(load_config(config), data)


def draw_sensors(picture: Path, target: Path) -> None:
    """Draw a camera picture and the lidar scan of the same frame, seen from above.

    Args:
        picture: SESSION/images/NNNNNN_CAM_FRONT.jpg.
        target: the JPEG to write.
    """
    session, number = picture.parents[1], picture.name.partition("_")[0]
    camera = read_picture(picture)[..., ::-1]  # (H, W, 3), blue first as in `canvas`
    scan = read_lidar(session / "lidar" / f"{number}_LIDAR.npy")
    width = round(camera.shape[1] * _SIDE / camera.shape[0])
    right = cv2.resize(camera, (width, _SIDE), interpolation=cv2.INTER_AREA)
    image = np.concatenate([_from_above(scan), right], axis=1)
    margin = canvas.blank(40, image.shape[1])
    meta = read_json(session / "session.json")
    canvas.text(margin, str(meta.get("attribution", "")), (12, 28), size=0.7)
    cv2.imwrite(str(target), np.concatenate([image, margin]), [cv2.IMWRITE_JPEG_QUALITY, 80])


def _from_above(scan: np.ndarray) -> np.ndarray:
    """Return uint8 (side, side, 3): returns (N, 4) of the sensor frame, coloured by height."""
    image = canvas.blank(_SIDE, _SIDE)
    near = scan[np.abs(scan[:, :2]).max(axis=1) < _REACH_M]
    near = near[np.argsort(near[:, 2])]  # the highest return of a pixel is drawn last
    lowest = float(near[:, 2].min()) if len(near) else 0.0
    scale = HeightScale(ground_m=0.5, top_m=40.0)
    # ahead is up, left is left
    rows = ((_REACH_M - near[:, 0]) * _SIDE / (2 * _REACH_M)).astype(int)
    columns = ((_REACH_M - near[:, 1]) * _SIDE / (2 * _REACH_M)).astype(int)
    image[rows, columns] = scale.colours(near[:, 2] - lowest)
    return image


if __name__ == "__main__":
    main()
