"""Draw the plan of a data folder: the regions of the splits and the tracks of the sessions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from vlwm.core.data.packed_store import PackedStore
from vlwm.core.data.splits import Splits
from vlwm.core.report.svg import ticks
from vlwm.core.text import safe_text
from vlwm.core.vocabulary import Agent, Split

_SIZE = 460.0
_FILL: dict[str, str] = {Split.TRAIN: "#56b4e9", Split.VAL: "#e69f00", Split.TEST: "#d55e00"}
_AGENT: dict[str, str] = {Agent.DRONE: "#1b3a57", Agent.ROVER: "#7a2e6a"}
_MOST_POINTS = 120


@dataclass(frozen=True)
class Track:
    """The way of a session on the plan.

    Attributes:
        name: of the session.
        agent: 'drone' or 'rover'.
        xy: (N, 2) metres east and north in the coordinate reference system.
    """

    name: str
    agent: str
    xy: NDArray[np.float64]


def tracks_of(store: PackedStore) -> list[Track]:
    """Return the tracks of the sessions that have a place."""
    found = []
    for number, (name, rows) in enumerate(store.session_rows()):
        meta = store.meta[number]
        origin = meta.get("origin")
        if not origin:
            continue
        thin = rows[:: max(1, len(rows) // _MOST_POINTS)]
        shift = np.array([origin["easting"], origin["northing"]])
        agent = str(meta.get("agent") or Agent.DRONE)
        found.append(Track(name, agent, store.poses[thin, :2] + shift))
    return found


def map_svg(splits: Splits | None, tracks: list[Track]) -> str:
    """Return the plan, north up; an empty text where nothing has a place."""
    regions = [] if splits is None else splits.regions
    corners = [np.array([[r.x0, r.y0], [r.x1, r.y1]]) for r in regions]
    points = [*corners, *(track.xy for track in tracks)]
    if not points:
        return ""
    every = np.concatenate(points)
    low, high = every.min(0), every.max(0)
    span = float(max(high - low)) * 1.06 or 1.0
    centre = (low + high) / 2
    plan = _Plan(centre, span)
    height = _SIZE * float(high[1] - low[1]) * 1.06 / span + 24 if len(every) else _SIZE
    plan = _Plan(centre, span, max(height, 120.0))
    parts = [*_regions(plan, splits), *(_track(plan, track) for track in tracks), plan.bar()]
    return (
        f'<svg viewBox="0 0 {_SIZE:.0f} {plan.height:.0f}" role="img" '
        f'aria-label="Plan of the splits and tracks, north up">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class _Plan:
    """Metres to pixels, north up."""

    centre: NDArray[np.float64]
    span: float
    height: float = _SIZE

    def at(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        scale = _SIZE / self.span
        away = (xy - self.centre) * scale
        return np.stack([_SIZE / 2 + away[..., 0], self.height / 2 - away[..., 1]], axis=-1)

    def bar(self) -> str:
        """Return a scale bar of a round length."""
        length = ticks(0.0, self.span, 5)[1]
        wide = length * _SIZE / self.span
        y = self.height - 8
        return (
            f'<path d="M10 {y:.0f}h{wide:.0f}" stroke="#222" stroke-width="3"/>'
            f'<text x="{16 + wide:.0f}" y="{y + 4:.0f}">{length:g} m</text>'
        )


def _regions(plan: _Plan, splits: Splits | None) -> Iterator[str]:
    for region in [] if splits is None else splits.regions:
        left, top = plan.at(np.array([region.x0, region.y1]))
        right, bottom = plan.at(np.array([region.x1, region.y0]))
        colour = _FILL.get(region.split, "#999")
        yield (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}" fill="{colour}" fill-opacity="0.25" stroke="{colour}"/>'
            f'<text x="{left + 5:.1f}" y="{top + 15:.1f}" class="title">'
            f"{escape(safe_text(region.split))}</text>"
        )


def _track(plan: _Plan, track: Track) -> str:
    pixels = plan.at(track.xy)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
    colour = _AGENT.get(track.agent, "#222")
    start = pixels[0]
    return (
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        f'<circle cx="{start[0]:.1f}" cy="{start[1]:.1f}" r="2.5" fill="{colour}">'
        f"<title>{escape(safe_text(track.name))}</title></circle>"
    )


def map_legend(tracks: list[Track]) -> str:
    """Return the colours of the agents, counted."""
    items = []
    for agent in sorted({track.agent for track in tracks}):
        count = sum(track.agent == agent for track in tracks)
        colour = _AGENT.get(agent, "#222")
        items.append(
            f'<li><svg viewBox="0 0 24 10" class="key" aria-hidden="true"><path d="M1 5H23" '
            f'stroke="{colour}" stroke-width="2"/></svg>{escape(safe_text(agent))}, {count} '
            "sessions; a dot marks the start</li>"
        )
    return f'<ul class="legend">{"".join(items)}</ul>'
