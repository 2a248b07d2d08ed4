"""The dashboard's curves: loss, mean prediction against target, validation, loss parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from rich.text import Text

from vlwm.core.monitoring.formatting import Glyphs, short
from vlwm.core.monitoring.panels import FAINT, LABEL, Room, codebook, line, named, packed, trend
from vlwm.core.monitoring.snapshot import Record, Series, Snapshot, StageView
from vlwm.core.monitoring.terminal.charts import Cell, LineChart, Point, line_chart
from vlwm.core.run_status import finite as number
from vlwm.core.vocabulary import Stage, Track

COLOURS = ("cyan", "yellow", "magenta", "green")
_AXIS = 8  # characters of the labels next to a chart
_PART_ORDER = ("occupancy", "focal", "dice", "mean", "token", "pose", "vq")
_PART_LABELS = {"mean": "mean match", "token": "tokens", "pose": "motion", "vq": "codebook"}
BASELINES = ("val/iou_baseline", "val/iou_memory_baseline")
"""metrics of the baseline on validation, the strongest first"""


class _Drawn:
    """A chart of some series, drawn again only when a series, the size or the glyphs change."""

    def __init__(self, series: tuple[Series, ...], room: Room, log: bool | None) -> None:
        self.series, self.room, self.log = series, room, log
        ends = tuple((s.count, s.steps[-1:], s.values[-1:], s.steps[:1]) for s in series)
        self.key = (repr(ends), room.width, room.height, room.glyphs.ascii_only, log)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Drawn) and self.key == other.key


@lru_cache(maxsize=32)
def _cached(drawn: _Drawn) -> tuple[Text, ...]:
    points = [s.points() for s in drawn.series]
    return tuple(_plot(points, drawn.room, drawn.log))


def curve(series: Sequence[Series], room: Room, *, log: bool | None = None) -> list[Text]:
    """Return a line chart of series of a run; kept until one of them has a new value."""
    return list(_cached(_Drawn(tuple(series), room, log)))


def _plot(series: Sequence[Sequence[Point]], room: Room, log: bool | None) -> list[Text]:
    if room.height < 3 or room.width < _AXIS + 8:
        return []
    if not any(len(one) > 1 for one in series):
        begun = any(len(one) for one in series)
        words = "waiting for a second value" if begun else "waiting for the first value"
        return [line((words[: room.width], FAINT))]
    width, height = room.width - _AXIS, room.height - 1
    chart = line_chart(series, width, height, log=log, ascii_only=room.glyphs.ascii_only)
    labels = _labels(chart, height)
    lines = [_row(cells, labels.get(index, "")) for index, cells in enumerate(chart.rows)]
    return [*lines, _steps(chart, width)]


def _labels(chart: LineChart, height: int) -> dict[int, str]:
    """Return values at the top, middle and bottom row, with as many digits as tell them apart."""
    middle = (height - 1) // 2
    shares = {0: 1.0, height - 1: 0.0, middle: 1.0 - (middle + 0.5) / height}
    for digits in (2, 3, 4):
        labels = {row: short(chart.y.at(share), digits) for row, share in shares.items()}
        if len(set(labels.values())) == len(labels):
            break
    return labels


def _row(cells: Sequence[Cell], label: str) -> Text:
    row = line((f"{label:>{_AXIS - 2}}  ", LABEL))
    for cell in cells:
        colour = None if cell.series is None else COLOURS[cell.series % len(COLOURS)]
        row.append(cell.char, colour)
    return row


def _steps(chart: LineChart, width: int) -> Text:
    first, last = f"{chart.x.low:,.0f}", f"step {chart.x.high:,.0f}"
    return line((f"{'':{_AXIS}}{first}{last:>{max(0, width - len(first))}}", FAINT))


def loss_title(snapshot: Snapshot) -> Text:
    """Return the newest loss."""
    value = number(snapshot.stage.last, "train/loss")
    return line(("loss ", ""), (short(value), f"bold {COLOURS[0]}"))


def loss(snapshot: Snapshot, room: Room) -> list[Text]:
    """Draw the training loss over steps."""
    return curve([snapshot.stage.series("train/loss")], room)


def means_title(snapshot: Snapshot, width: int = 80) -> Text:
    """Return the mean prediction next to the target's mean."""
    last = snapshot.stage.last
    predicted, target = number(last, "pred/mean"), number(last, "target/mean")
    title = line(("prediction ", ""), (short(predicted), f"bold {COLOURS[0]}"))
    title.append("  target ").append(short(target), f"bold {COLOURS[1]}")
    if predicted is not None and target and title.cell_len + 12 <= width:
        title.append(f"  ratio {predicted / target:.2f}")
    return title


def means(snapshot: Snapshot, room: Room) -> list[Text]:
    """Draw mean prediction and mean target over steps."""
    stage = snapshot.stage
    return curve([stage.series("pred/mean"), stage.series("target/mean")], room, log=False)


def parts(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return each part of the loss with its trend, a line each."""
    record = snapshot.stage.last or {}
    lines = []
    for name in _part_names(record)[: room.height]:
        label = _part_label(name)
        text = line((f"{label:<11}", LABEL), (f"{short(number(record, name)):>8}  ", "bold"))
        lines.append(text.append_text(trend(snapshot, name, room.width - 21, room.glyphs)))
    return lines or [line(("waiting for the first value", FAINT))]


def parts_line(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the parts of the loss in as few lines as possible."""
    record = snapshot.stage.last or {}
    items = []
    for name in _part_names(record):
        text = named(_part_label(name), short(number(record, name)) + " ")
        items.append(text.append_text(trend(snapshot, name, 4, room.glyphs)))
    return packed(items, room.width, "  ")


def _part_names(record: Record) -> list[str]:
    return sorted((n for n in record if n.startswith("loss/")), key=_part_place)


def _part_label(name: str) -> str:
    return _PART_LABELS.get(name[5:], name[5:])


def _part_place(name: str) -> tuple[int, str]:
    part = name[5:]
    return (_PART_ORDER.index(part) if part in _PART_ORDER else len(_PART_ORDER), part)


def validation(snapshot: Snapshot) -> list[Text]:
    """Return named values of the newest validation, the baseline next to the model."""
    stage = snapshot.stage
    last = stage.last_val
    if last is None:
        nothing = line(("no validation yet", FAINT))
        return [nothing, *_tokenizer_result(snapshot), *codebook(snapshot)]
    items = []
    label, name = _iou_of(stage)
    value = number(last, name)
    if value is not None:
        best = max(stage.val_series(name).values)
        items += [named(label, short(value)), named("best", short(best))]
    baseline, own = _baseline(last), number(last, "val/iou")
    if baseline is not None:
        ahead = own is not None and own >= baseline
        items.append(named("baseline", short(baseline), "bold" if ahead else "bold yellow"))
    planned = number(last, "val/iou_plan")
    if planned is not None:
        items.append(named("IoU (true motion given)", short(planned)))
    loss_value, threshold = number(last, "epoch/val_loss"), number(last, "val/threshold")
    items.append(named("val loss", short(loss_value)))
    if threshold is not None:
        items.append(named("occupied from", short(threshold)))
    return items + codebook(snapshot) + _tokenizer_result(snapshot)


def _baseline(record: Record) -> float | None:
    for name in BASELINES:
        value = number(record, name)
        if value is not None:
            return value
    return None


def _iou_of(stage: StageView) -> tuple[str, str]:
    """Return label and metric of a stage's score."""
    if stage.name != Stage.TOKENIZER:
        return "IoU", "val/iou"
    own = "val/round_trip_iou"
    return "round trip IoU", own if stage.val_series(own).count else "val/iou"


def _tokenizer_result(snapshot: Snapshot) -> list[Text]:
    """Return the result of stage 1, while stage 2 runs."""
    first = snapshot.stages[Stage.TOKENIZER]
    if snapshot.stage.name == Stage.TOKENIZER or not first.val_count:
        return []
    values = first.val_series(_iou_of(first)[1]).values
    return [named("tokenizer round trip IoU", short(max(values)))] if len(values) else []


def validation_chart(snapshot: Snapshot, room: Room) -> list[Text]:
    """Draw the IoU of the model and of the baseline, validation by validation."""
    stage = snapshot.stage
    baseline = next((s for n in BASELINES if (s := stage.val_series(n)).count), Series())
    return curve([stage.val_series(_iou_of(stage)[1]), baseline], room, log=False)


def horizons(snapshot: Snapshot, room: Room) -> list[Text]:
    """Return the test IoU per horizon, model above baseline, of an ended run."""
    sheet = snapshot.scores or {}
    scores, times = sheet.get("scores"), sheet.get("horizons_s")
    if not isinstance(scores, dict) or not isinstance(times, list):
        return []
    chosen = sheet.get("baseline")
    baseline = chosen.get("predicted") if isinstance(chosen, dict) else None
    names = [Track.PREDICTED.value, baseline if isinstance(baseline, str) else "memory_baseline"]
    label = max(map(len, names)) + 1
    # every second or third horizon where not all fit; the last one always
    stride = next((n for n in (1, 2, 3) if label + 7 * -(-len(times) // n) <= room.width), 3)
    label = min(label, max(8, room.width - 7 * -(-len(times) // stride)))
    kept = range(len(times) - 1, -1, -stride)[::-1]
    head = "".join(f"{times[i]:>6.1f}s" for i in kept if isinstance(times[i], (int, float)))
    lines = [line((f"{'test IoU':<{label}}{head}", LABEL))]
    for name in names:
        row = scores.get(name)
        values = row.get("iou") if isinstance(row, dict) else None
        if isinstance(values, list) and len(values) == len(times):
            shown = "".join(f"{short(number({'v': values[i]}, 'v')):>7}" for i in kept)
            lines.append(line((f"{name[:label]:<{label}}", LABEL), (shown, "bold")))
    return lines if len(lines) > 1 else []


def prediction_items(snapshot: Snapshot) -> list[Text]:
    """Return the largest and smallest prediction and the share of cells predicted occupied."""
    record = snapshot.stage.last
    pairs = (
        ("highest prediction", "pred/max"),
        ("lowest", "pred/min"),
        ("predicted occupied", "pred/occupancy_rate"),
    )
    return [
        named(label, short(value))
        for label, name in pairs
        if (value := number(record, name)) is not None
    ]


def overlay(first: Snapshot, second: Snapshot, name: str, room: Room, glyphs: Glyphs) -> list[Text]:
    """Draw one metric of two runs over the same steps; the second one is dashed."""
    pair = [snapshot.stage.series(name) for snapshot in (first, second)]
    if not all(series.count for series in pair):
        pair = [snapshot.stage.val_series(name) for snapshot in (first, second)]
    return curve(pair, Room(room.width, room.height, glyphs))
