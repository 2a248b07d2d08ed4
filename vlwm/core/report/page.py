"""Put the parts of a report together: one HTML file that asks nobody for anything.

The content security policy forbids every request and allows this page's own script and style by
their hashes. Text of others is made printable (`safe_text`) and escaped at one place, `_text`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from string import Template

from vlwm.core.report.svg import Chart, Line, legend
from vlwm.core.text import safe_text
from vlwm.core.vocabulary import Track

_OWN = tuple(Track)
_FORECASTS: dict[str, str] = {
    Track.PREDICTED: "model, motion predicted",
    Track.PLAN: "model, along the plan",
    "memory_baseline": "memory baseline",
}


@dataclass(frozen=True)
class ShownWindow:
    """A window in the page.

    Attributes:
        words: for the list of windows and the caption.
        data: JSON for the viewer.
        png: a picture for where the viewer cannot run.
    """

    words: str
    data: str
    png: bytes


@dataclass(frozen=True)
class ReportContent:
    """All that a page shows.

    Attributes:
        title: heading.
        lead: sentences under the heading.
        tables: (caption, column names, rows); a row with one cell opens a group.
        scores: charts of scores over the horizon, with one legend.
        calibration: reliability and the like.
        training: curves of training.
        windows: of the viewer; empty for none.
        forecasts: methods that the viewer can show, in this order.
        grid: JSON for the viewer.
        city: (svg, legend) of the map; ("", "") for none.
        facts: (name, value) of the provenance.
        attribution: sources of the data.
        film: WebM video; None for none.
    """

    title: str
    lead: Sequence[str]
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = ()
    scores: Sequence[Chart] = ()
    calibration: Sequence[Chart] = ()
    training: Sequence[Chart] = ()
    windows: Sequence[ShownWindow] = ()
    forecasts: Sequence[str] = tuple(_FORECASTS)
    grid: str = "{}"
    city: tuple[str, str] = ("", "")
    facts: Sequence[tuple[str, str]] = ()
    attribution: str = ""
    film: bytes | None = field(default=None, repr=False)


def render(content: ReportContent) -> str:
    """Return the page."""
    style, script = _resource("page.css"), _resource("viewer.js")
    sections = [s for s in _sections(content) if s]
    allowed = f"style-src {_hash(style)}"
    if content.windows:
        allowed += f"; script-src {_hash(script)}"
        sections.append(f"<script>{script}</script>")
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{_text(content.title)}</title><style>{style}</style></head><body><main>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _resource(name: str) -> str:
    return files("vlwm.core.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _text(words: object) -> str:
    return escape(safe_text(words, 2000))


def _sections(content: ReportContent) -> Iterator[str]:
    lead = "".join(f'<p class="lead">{_text(sentence)}</p>' for sentence in content.lead)
    credit = _credit(content.attribution)
    yield f"<header><h1>{_text(content.title)}</h1>{lead}{credit}</header>"
    yield _viewer(content)
    yield _film(content)
    yield _section("Scores", "".join(map(_table, content.tables)) + _charts(content.scores))
    yield _section("Calibration", _charts(content.calibration))
    yield _section("Training", _charts(content.training, one_legend=False))
    city, names = content.city
    note = '<p class="note">Plan of the city, north up: regions of the splits, and flights.</p>'
    yield _section("Place", f'{note}<figure class="map">{city}</figure>{names}' if city else "")
    rows = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in content.facts)
    yield _section("Provenance", f"<dl>{rows}</dl>" if rows else "")
    yield f"<footer>{credit}</footer>" if credit else ""


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>" if body else ""


def _credit(attribution: str) -> str:
    return f'<p class="note" lang="ja">{_text(attribution)}</p>' if attribution else ""


def _table(table: tuple[str, Sequence[str], Sequence[Sequence[str]]]) -> str:
    caption, columns, rows = table
    heads = "".join(f'<th scope="col">{_text(c)}</th>' for c in columns)
    body = []
    for row in rows:
        if len(row) == 1:
            body.append(f'<tr class="track"><td colspan="{len(columns)}">{_text(row[0])}</td></tr>')
            continue
        own = ' class="own"' if row[0] in _OWN else ""
        body.append(f"<tr{own}>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>")
    return (
        f'<p class="note">{_text(caption)}</p><div class="scroll"><table><thead><tr>{heads}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _charts(charts: Sequence[Chart], *, one_legend: bool = True) -> str:
    drawn = [(chart, chart.svg()) for chart in charts]
    drawn = [(chart, svg) for chart, svg in drawn if svg]
    if not drawn:
        return ""
    names: list[Line] = []
    for chart, _ in drawn:
        names += [line for line in chart.lines if line.name not in {n.name for n in names}]
    figures = [
        f"<figure>{svg}{'' if one_legend else legend(chart.lines)}</figure>" for chart, svg in drawn
    ]
    common = legend(names) if one_legend and any(line.name for line in names) else ""
    return f'{common}<div class="charts">{"".join(figures)}</div>'


def _viewer(content: ReportContent) -> str:
    """Return the interactive window, and its pictures for where it cannot run."""
    if not content.windows:
        return ""
    choices = [
        f'<option value="{n}">{_text(w.words)}</option>' for n, w in enumerate(content.windows)
    ]
    forecasts = [
        f'<option value="{name}">{_text(_FORECASTS.get(name, name))}</option>'
        for name in content.forecasts
    ]
    stills = [
        f'<figure><img alt="{_text(w.words)}" src="data:image/png;base64,'
        f'{base64.b64encode(w.png).decode("ascii")}"><figcaption>{_text(w.words)}</figcaption>'
        "</figure>"
        for w in content.windows
    ]
    data = "".join(
        f'<script type="application/json" class="window">{w.data}</script>' for w in content.windows
    )
    return Template(_resource("viewer.html")).substitute(
        windows="".join(choices),
        forecasts="".join(forecasts),
        stills="".join(stills),
        grid=content.grid,
        data=data,
    )


def _film(content: ReportContent) -> str:
    if content.film is None:
        return ""
    data = base64.b64encode(content.film).decode("ascii")
    return _section(
        "Film", f'<video controls muted loop src="data:video/webm;base64,{data}"></video>'
    )
