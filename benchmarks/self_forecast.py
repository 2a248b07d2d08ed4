"""Does a forecast of the last past frame tell how wide the spread of a window should be?

    python benchmarks/self_forecast.py --data DIR --unseen CITY … [--seeds 0 1 2]
                                       [--config tokyo_small] [--set KEY=VALUE …] [--out FILE]

Poses alone. A ridge regression foretells the last past frame from those before it; the size of its
error, against the usual one on validation windows, gives a factor on the draws of the motion head
and on its sigmas. All is fitted and chosen on the train and validation split of --data; scored are
its test split and every window of the folders of --unseen. Four forms:

    constant    one factor for all windows: what more or less spread alone gives
    scalar      (e / usual e)^a, e the error in metres (a radian counts as 10 m)
    component   the same of ahead, left and turn, each with its own a
    regression  of log(error of the forecast / its spread) on the logarithms of the three errors,
                speed, turn rate, acceleration and height; times a, over folds of clusters

The a (0: off) and a constant factor come from the energy score on validation. Printed: the energy
score (metres; lower is better) with the paired 95 % interval of its change over clusters, and the
share of the errors of x, y and yaw within one sigma (0.68 of a normal distribution; the scales of
the sigmas are fitted again with the factor). `best` is the best constant factor of that city, which
no forecast knows. Last, the correlation of the self-forecast's error with the error over the
spread, both as logarithms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motion_ladder import Folder, interval, network
from vlwm.core.config.load import load_config
from vlwm.core.data.windows import Window
from vlwm.core.evaluation.baselines.fit import motion_of
from vlwm.core.evaluation.baselines.motions import PastMotion, Ridge, TurnRate, errors_of
from vlwm.core.evaluation.clusters import cluster_of
from vlwm.core.evaluation.eval_windows import WindowShape
from vlwm.core.model.motion.energy_score import energy_of
from vlwm.core.model.motion.motion_head import MotionHead
from vlwm.core.model.motion.vehicle_state import planar_of

POWERS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""candidates of a"""
CONSTANTS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 2.0)
"""candidates of the constant factor"""
ENDS = (0.25, 4.0)
"""of a factor"""
LEAST_M = 0.01
"""errors below it are equal"""
ONE_SIGMA = 0.6827
IN_METRES = np.array([1.0, 1.0, 10.0])
"""ahead, left (m) and yaw (rad), as the energy score weighs them"""
PENALTY = 30.0
PIECE = 16
"""windows at once"""
FOLDS = 4

Factor = np.ndarray
"""float64 (N, 3): ahead, left, turn"""


@dataclass(frozen=True)
class Measured:
    """What a form reads of some windows, and what it is scored on.

    Attributes:
        past: past motion.
        clusters: of each window.
        draws: float64 (N, H, M, 3), x, y, yaw less the expected ones, in the expected ego frame.
        truth: float64 (N, H, 3), as `draws`.
        sigma: float64 (N, H, 3), of x, y and yaw.
        error: float64 (N, H, 3), of x, y and yaw, absolute.
        own: float64 (N, 3), absolute error of the self-forecast: ahead, left, turn, in metres.
    """

    past: PastMotion
    clusters: list[Any]
    draws: torch.Tensor
    truth: torch.Tensor
    sigma: np.ndarray
    error: np.ndarray
    own: np.ndarray

    def energy(self, factor: Factor) -> np.ndarray:
        """Return energy scores (N,), horizons averaged, with a factor on the draws."""
        found = []
        # in pieces that stay in the cache
        for some in torch.arange(len(factor)).split(PIECE):
            scaled = self.draws[some] * torch.from_numpy(factor[some])[:, None, None]
            rows = energy_of(scaled.flatten(0, 1), self.truth[some][:, :, None].flatten(0, 1))
            found.append(rows.view(len(some), -1).mean(dim=1))
        return torch.cat(found).numpy()

    def scales(self, factor: Factor) -> np.ndarray:
        """Return (H, 3): scales of the sigmas that hold their share of the errors here."""
        return np.quantile(self.error / (self.sigma * factor[:, None]), ONE_SIGMA, axis=0)

    def within(self, factor: Factor, scales: np.ndarray) -> float:
        """Return the share of errors within one sigma."""
        return float((self.error <= self.sigma * factor[:, None] * scales).mean())


class SelfForecast:
    """A ridge regression from all past frames but the last one to the last one."""

    def __init__(self, folder: Folder) -> None:
        history = folder.shape.history
        self.shape = WindowShape(history - 1, 1, folder.shape.dt_s)
        train, val = (self.parts(folder, folder.windows(s)) for s in ("train", "val"))
        rate = TurnRate.fit(*train, self.shape.horizons_s)
        self.ridge = Ridge.fit(rate, *train, *val)

    def parts(self, folder: Folder, windows: list[Window]) -> tuple[PastMotion, np.ndarray]:
        """Return the first past frames of windows and the last one as their future."""
        history = self.shape.history + 1
        some = [Window(w.session, w.start, w.rows[:history]) for w in windows]
        return motion_of(folder.store, some, self.shape)

    def error(self, folder: Folder, windows: list[Window]) -> np.ndarray:
        """Return absolute errors (N, 3) of the last past frame: ahead, left, turn, in metres."""
        past, future = self.parts(folder, windows)
        return np.abs(errors_of(self.ridge.expected(past), future)[:, 0]) * IN_METRES


@torch.no_grad()
def measured(
    head: MotionHead, own: SelfForecast, folder: Folder, windows: list[Window]
) -> Measured:
    """Return what the forms read and are scored on."""
    past, future = motion_of(folder.store, windows, folder.shape)
    poses, ground_z = (torch.from_numpy(v).float() for v in (past.poses, past.ground_z))
    motion = head(poses, ground_z)
    count, horizons = future.shape[:2]
    rows = torch.arange(count).repeat_interleave(horizons)
    moves = head.moves(motion, rows, torch.arange(horizons).repeat(count))
    expected = planar_of(motion.state).double().numpy()  # (N, H, 3)
    off = future[..., [0, 1, 3]] - expected
    off[..., 2] = np.remainder(off[..., 2] + np.pi, 2 * np.pi) - np.pi
    sigma = planar_of(motion.log_sigma).double().exp() * planar_of(head.sigma_scale).double()
    heading = torch.from_numpy(expected[..., 2:])  # (N, H, 1)
    return Measured(
        past,
        [str(cluster_of(folder.store, w, folder.shape.history)) for w in windows],
        _turned(moves.double().view(count, horizons, -1, 3), heading),
        _turned(torch.from_numpy(off)[:, :, None], heading)[:, :, 0],
        sigma.numpy(),
        np.abs(off),
        own.error(folder, windows),
    )


def _turned(moves: torch.Tensor, heading: torch.Tensor) -> torch.Tensor:
    """Return moves (N, H, M, 3) in the frame of a heading (N, H, 1)."""
    cos, sin = heading.cos(), heading.sin()
    x, y, yaw = moves.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x, yaw], dim=-1)


Form = Callable[[Measured], Factor]


def _best(tried: list[Form], val: Measured) -> Form:
    scores = [float(val.energy(form(val)).mean()) for form in tried]
    return tried[int(np.argmin(scores))]


def constant(val: Measured) -> Form:
    """Return the best factor for all windows."""
    return _best([_power(val, np.zeros(3), b) for b in CONSTANTS], val)


def _power(val: Measured, powers: np.ndarray, b: float, *, together: bool = False) -> Form:
    """Return b (e / usual e)^a; `together` takes the length of the three errors."""

    def sizes(windows: Measured) -> np.ndarray:
        error = np.maximum(windows.own, LEAST_M)
        length = np.linalg.norm(error, axis=1, keepdims=True)
        return np.log(np.repeat(length, 3, axis=1) if together else error)

    usual = sizes(val).mean(axis=0)
    return lambda windows: np.clip(b * np.exp(powers * (sizes(windows) - usual)), *ENDS)


def scalar(val: Measured) -> Form:
    """Return the best factor from the length of the error."""
    tried = [
        _power(val, np.full(3, a), b, together=True) for a in POWERS for b in CONSTANTS
    ]  # fmt: skip
    return _best(tried, val)


def component(val: Measured) -> Form:
    """Return the best factors of ahead, left and turn: two rounds over them."""
    powers, b = np.zeros(3), 1.0
    for _ in range(2):
        for c in range(3):
            tried = [np.where(np.arange(3) == c, a, powers) for a in POWERS]
            scores = [val.energy(_power(val, p, b)(val)).mean() for p in tried]
            powers = tried[int(np.argmin(scores))]
        scores = [val.energy(_power(val, powers, c)(val)).mean() for c in CONSTANTS]
        b = CONSTANTS[int(np.argmin(scores))]
    return _power(val, powers, b)


def _features(windows: Measured) -> np.ndarray:
    """Return (N, K)."""
    past = windows.past
    last, before = past.poses[:, -1], past.poses[:, -2]
    error = np.maximum(windows.own, LEAST_M)
    speeds = [np.linalg.norm(p[:, 7:9], axis=1) for p in (before, last)]
    columns = [
        *np.log(error).T, np.log(np.linalg.norm(error, axis=1)), speeds[1], np.abs(last[:, 12]),
        np.abs(speeds[1] - speeds[0]) / past.dt_s,
        np.log1p(np.maximum(last[:, 2] - past.ground_z[:, -1], 0)),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def _target(windows: Measured) -> np.ndarray:
    """Return (N,): the logarithm of error over spread, horizons averaged."""
    weights = torch.from_numpy(IN_METRES)
    error = (windows.truth * weights).norm(dim=-1).numpy()
    spread = (windows.draws * weights).square().sum(-1).mean(-1).sqrt().numpy()
    return (np.log(error + LEAST_M) - np.log(spread + LEAST_M)).mean(axis=1)


def _fit(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a linear map less its mean on the rows that it was fitted on."""
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = (x - centre) / scale
    weights = np.linalg.solve(z.T @ z + PENALTY * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return lambda rows: np.clip((rows - centre) / scale, -6, 6) @ weights


def regression(val: Measured) -> Form:
    """Return the regression, times the a that is best on folds it was not fitted on."""
    x, y = _features(val), _target(val)
    names = sorted(set(val.clusters))
    fold = np.array([names.index(c) % FOLDS for c in val.clusters])
    unseen = np.empty(len(y))
    for k in range(FOLDS):
        unseen[fold == k] = _fit(x[fold != k], y[fold != k])(x[fold == k])
    every = [(a, b) for a in POWERS for b in CONSTANTS]
    scores = [
        val.energy(np.clip(b * np.exp(a * unseen), *ENDS)[:, None].repeat(3, 1)).mean()
        for a, b in every
    ]
    a, b = every[int(np.argmin(scores))]
    line = _fit(x, y)
    return lambda windows: np.clip(b * np.exp(a * line(_features(windows))), *ENDS)[:, None].repeat(
        3, axis=1
    )


FORMS = {"constant": constant, "scalar": scalar, "component": component, "regression": regression}


def scored(seed: int, folder: Folder, own: SelfForecast, cities: dict[str, Folder]) -> dict:
    """Return, by city and form, energy scores (N,) and shares of one seed."""
    train, val = (folder.windows(s) for s in ("train", "val"))
    head = network(folder, train, val, seed).eval()
    known = measured(head, own, folder, val)
    chosen: dict[str, Form] = {"off": lambda windows: np.ones((len(windows.own), 3))}
    chosen |= {name: choose(known) for name, choose in FORMS.items()}
    scales = {name: known.scales(form(known)) for name, form in chosen.items()}
    found: dict[str, Any] = {}
    for city, place in cities.items():
        every = place.windows("test") if place is folder else of_all_splits(place)
        windows = measured(head, own, place, every)
        rows = {}
        for name, form in chosen.items():
            factor = form(windows)
            rows[name] = {
                "energy": windows.energy(factor),
                "within": windows.within(factor, scales[name]),
                "factor": float(np.exp(np.log(factor).mean())),
            }
        tried = {b: windows.energy(np.full((len(every), 3), b)) for b in CONSTANTS}
        best = min(tried, key=lambda b: float(tried[b].mean()))
        rows["best"] = {"energy": tried[best], "within": None, "factor": best}
        found[city] = {"rows": rows, "clusters": windows.clusters, "news": news(known, windows)}
    return found


def news(val: Measured, windows: Measured) -> tuple[float, float]:
    """Return the correlation of the logarithms of the self-forecast's error and of error over
    spread, and how many times larger the first is than on validation."""
    own, usual = (
        np.log(np.maximum(np.linalg.norm(w.own, axis=1), LEAST_M)) for w in (windows, val)
    )
    return float(np.corrcoef(own, _target(windows))[0, 1]), float(np.exp(own.mean() - usual.mean()))


def of_all_splits(folder: Folder) -> list[Window]:
    """Return the windows of all splits."""
    return [w for split in ("train", "val", "test") for w in folder.windows(split)]


def table(runs: list[dict]) -> list[dict[str, Any]]:
    """Return one row for each city and form, seeds averaged."""
    lines = []
    for city, first in runs[0].items():
        off = np.mean([run[city]["rows"]["off"]["energy"] for run in runs], axis=0)
        for form in first["rows"]:
            rows = [run[city]["rows"][form] for run in runs]
            energy = np.mean([row["energy"] for row in rows], axis=0)
            low, high = interval(energy - off, first["clusters"])
            shares = [row["within"] for row in rows]
            lines.append({
                "news": np.mean([run[city]["news"] for run in runs], axis=0).tolist(),
                "city": city, "windows": len(energy), "clusters": len(set(first["clusters"])),
                "form": form, "energy": float(energy.mean()),
                "change": float((energy - off).mean()), "low": low, "high": high,
                "by_seed": [
                    float((row["energy"] - run[city]["rows"]["off"]["energy"]).mean())
                    for row, run in zip(rows, runs, strict=True)
                ],
                "within": None if None in shares else float(np.mean(shares)),
                "factor": float(np.mean([row["factor"] for row in rows])),
            })  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared session folders")
    parser.add_argument("--unseen", type=Path, nargs="*", default=[], help="folders to score only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--config", default="tokyo_small")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="JSON lines")
    given = parser.parse_args()
    begun = time.process_time()
    config = load_config(given.config, tuple(given.set))
    folder = Folder(given.data, config)
    cities = {given.data.name: folder} | {p.name: Folder(p, config) for p in given.unseen}
    own = SelfForecast(folder)
    lines = table([scored(seed, folder, own, cities) for seed in given.seeds])
    for row in lines:
        share = "" if row["within"] is None else f"{row['within']:.3f}"
        ends = f"{row['change']:+.4f} ({row['low']:+.4f} … {row['high']:+.4f})"
        print(f"| {row['city']} ({row['windows']}, {row['clusters']}) | {row['form']} | "
              f"{row['energy']:.3f} | {ends} | {share} | {row['factor']:.2f} |")  # fmt: skip
    for city, (r, times) in {row["city"]: row["news"] for row in lines}.items():
        print(
            f"{city}: correlation {r:+.2f}, errors of the self-forecast {times:.2f} times the usual"
        )
    print(f"{time.process_time() - begun:.0f} processor seconds")
    if given.out is not None:
        with given.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in lines)


if __name__ == "__main__":
    main()
