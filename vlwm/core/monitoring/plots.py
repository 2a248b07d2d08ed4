"""The dashboard's curves: loss, mean prediction against target, validation, loss parts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from vlwm.core.monitoring.charts import Cell, LineChart, Point, line_chart
from vlwm.core.monitoring.formatting import short
from vlwm.core.monitoring.panels import FAINT, LABEL, Room, codebook, line, named, packed, trend
from vlwm.core.monitoring.snapshot import Snapshot, Stage, number

COLOURS = ("cyan", "yellow", "magenta", "green")
_AXIS = 8  # characters of the labels beside a chart
_PART_ORDER = ("occupancy", "focal", "dice", "mean", "token", "pose", "vq")


def plot(series: Sequence[Sequence[Point]], room: Room, *, log: bool | None = None) -> list[Text]:
    """A line chart with its axes' labels; a sentence where there is nothing to draw."""
    if not any(len(one) > 1 for one in series) or room.height < 3 or room.width < _AXIS + 8:
        begun = any(series)
        words = "the curve begins with the second number" if begun else "waiting for numbers"
        return [line((words, FAINT))]
    width, height = room.width - _AXIS, room.height - 1
    chart = line_chart(series, width, height, log=log, ascii_only=room.glyphs.ascii_only)
    labels = _labels(chart, height)
    lines = [_row(cells, labels.get(index, "")) for index, cells in enumerate(chart.rows)]
    return [*lines, _steps(chart, width)]


def _labels(chart: LineChart, height: int) -> dict[int, str]:
    """Values at the top, middle and bottom row, with as many digits as tell them apart."""
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
    """The newest loss."""
    value = number(snapshot.stage.last, "train/loss")
    return line(("loss ", ""), (short(value), f"bold {COLOURS[0]}"))


def loss(snapshot: Snapshot, room: Room) -> list[Text]:
    """Training loss over steps."""
    return plot([snapshot.stage.series("train/loss")], room)


def means_title(snapshot: Snapshot, width: int = 80) -> Text:
    """Mean prediction beside the target's mean."""
    last = snapshot.stage.last
    predicted, target = number(last, "pred/mean"), number(last, "target/mean")
    title = line(("prediction ", ""), (short(predicted), f"bold {COLOURS[0]}"))
    title.append("  target ").append(short(target), f"bold {COLOURS[1]}")
    if predicted is not None and target and title.cell_len + 12 <= width:
        title.append(f"  ratio {predicted / target:.2f}")
    return title


def means(snapshot: Snapshot, room: Room) -> list[Text]:
    """Mean prediction and mean target over steps."""
    stage = snapshot.stage
    return plot([stage.series("pred/mean"), stage.series("target/mean")], room, log=False)


def parts(snapshot: Snapshot, room: Room) -> list[Text]:
    """Each part of the loss with its trend, a line each."""
    record = snapshot.stage.last or {}
    names = sorted((n for n in record if n.startswith("loss/")), key=_part_place)
    lines = []
    for name in names[: room.height]:
        text = line((f"{name[5:]:<10}", LABEL), (f"{short(number(record, name)):>8}  ", "bold"))
        lines.append(text.append_text(trend(snapshot, name, room.width - 20, room.glyphs)))
    return lines or [line(("waiting for numbers", FAINT))]


def parts_line(snapshot: Snapshot, room: Room) -> list[Text]:
    """The same in as few lines as possible."""
    record = snapshot.stage.last or {}
    items = []
    for name in sorted((n for n in record if n.startswith("loss/")), key=_part_place):
        text = named(name[5:], short(number(record, name)) + " ")
        items.append(text.append_text(trend(snapshot, name, 4, room.glyphs)))
    return packed(items, room.width, "  ")


def _part_place(name: str) -> tuple[int, str]:
    part = name[5:]
    return (_PART_ORDER.index(part) if part in _PART_ORDER else len(_PART_ORDER), part)


def validation(snapshot: Snapshot) -> list[Text]:
    """Named values of the newest validation, the memory baseline beside the model."""
    stage = snapshot.stage
    last = stage.last_val
    if last is None:
        nothing = line(("no validation yet", FAINT))
        return [nothing, *_tokenizer_result(snapshot), *codebook(snapshot)]
    items = []
    label, name = _iou_of(stage)
    value = number(last, name)
    if value is not None:
        best = max(v for _, v in stage.val_series(name))
        items += [named(label, short(value)), named("best", short(best))]
    rival, own = number(last, "val/iou_memory_baseline"), number(last, "val/iou")
    if rival is not None:
        ahead = own is not None and own >= rival
        items.append(named("memory baseline", short(rival), "bold" if ahead else "bold yellow"))
    planned = number(last, "val/iou_plan")
    if planned is not None:
        items.append(named("IoU with the plan given", short(planned)))
    loss_value, threshold = number(last, "epoch/val_loss"), number(last, "val/threshold")
    items.append(named("val loss", short(loss_value)))
    if threshold is not None:
        items.append(named("threshold", short(threshold)))
    return items + codebook(snapshot) + _tokenizer_result(snapshot)


def _iou_of(stage: Stage) -> tuple[str, str]:
    """What the stage is judged by: label and metric."""
    if stage.name != "tokenizer":
        return "IoU", "val/iou"
    own = "val/round_trip_iou"
    return "round trip IoU", own if stage.val_series(own) else "val/iou"


def _tokenizer_result(snapshot: Snapshot) -> list[Text]:
    """How well stage 1 ended, while stage 2 runs."""
    first = snapshot.stages["tokenizer"]
    if snapshot.stage.name == "tokenizer" or not first.val:
        return []
    values = [v for _, v in first.val_series(_iou_of(first)[1])]
    return [named("tokenizer's round trip", short(max(values)))] if values else []


def validation_chart(snapshot: Snapshot, room: Room) -> list[Text]:
    """IoU of the model beside the memory baseline, validation by validation."""
    stage = snapshot.stage
    rival = stage.val_series("val/iou_memory_baseline")
    return plot([stage.val_series(_iou_of(stage)[1]), rival], room, log=False)


def prediction_items(snapshot: Snapshot) -> list[Text]:
    """Largest prediction and share of occupied cells."""
    record = snapshot.stage.last
    pairs = (("max", "pred/max"), ("min", "pred/min"), ("occupied", "pred/occupancy_rate"))
    return [
        named(label, short(value))
        for label, name in pairs
        if (value := number(record, name)) is not None
    ]
